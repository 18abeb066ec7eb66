"""Rules of storage, each of which some test must miss when it is gone (see `mutants`)."""

from __future__ import annotations

import pytest

from tests.mutation.mutants import Mutant, chosen, survives

UNIT = "tests/unit/storage"
RECOVERY = f"{UNIT}/test_recovery.py"
CHECKED = f"{UNIT}/test_checked.py"
CLEANER = f"{UNIT}/cleaner"
LOG = f"{UNIT}/test_log.py"
DIRECTORY = f"{UNIT}/test_directory.py"
STORE = "tests/unit/host/test_sqlite_store.py"
STATES = ("tests/sim/test_crash_states.py", "-k", "0] or 4] or 8]")
HISTORIES = ("tests/sim/test_storage_crashes.py", "-k", "from-0 or from-100 or from-700")
CUTS = ("tests/sim/test_every_damaged_byte.py", "-k", "i28")


def _rule(rule: str, module: str, text: str, instead: str, *tests: str) -> Mutant:
    return Mutant(rule, f"ottla.storage.{module}", text, instead, tests)


MUTANTS = [
    # what recovery cuts, and what it keeps
    _rule(
        "what sound batches follow is not cut",
        "recovery",
        "contains_batch(one.log.read(sound if one is segment else 0, one.log.size()), expected)",
        "False",
        RECOVERY,
    ),
    _rule(
        "what was on disk for certain is not cut",
        "recovery",
        "damaged = expected < work.hints.recovery_point or any(",
        "damaged = any(",
        RECOVERY,
    ),
    _rule(
        "a log must reach its recovery point",
        "recovery",
        "if end < hints.recovery_point and not failed:",
        "if False:",
        RECOVERY,
    ),
    _rule(
        "past the recovery point checksums are computed",
        "recovery",
        "if crc32c(batch.view[CRC_START:]) != batch.crc:",
        "if False:",
        RECOVERY,
    ),
    _rule(
        "offsets go on without holes",
        "recovery",
        "if not follows and not work.may_lack(segment.end, batch.base_offset):",
        "if False:",
        RECOVERY,
    ),
    _rule(
        "a log that was closed cleanly ends where it ended then",
        "recovery",
        "return position == last.size and last.end == work.hints.recovery_point",
        "return True",
        RECOVERY,
    ),
    _rule(
        "a log doesn't begin behind its start",
        "recovery",
        "return work.hints.start_certain and first > start and not first <= work.holes_until",
        "return False",
        *CUTS,
    ),
    _rule(
        "without compaction no segment begins behind the end of the one before",
        "recovery",
        "return expected < base_offset <= min(certain, self.holes_until)",
        "return expected < base_offset",
        RECOVERY,
    ),
    _rule(
        "a log that is empty goes on at its start",
        "recovery",
        "    if end < hints.start:\n",
        "    if False:\n",
        RECOVERY,
    ),
    _rule(
        "what a clean stop made believe is forgotten",
        "recovery",
        "    segment.end = segment.base_offset\n    segment.max_timestamp, segment",
        "    segment.max_timestamp, segment",
        RECOVERY,
    ),
    _rule(
        "what recovery has read is synced before its recovery point says so",
        "recovery",
        "steps: list[Step] = [SyncFile(file) for file in dict.fromkeys(work.touched)]",
        "steps: list[Step] = []",
        *HISTORIES,
    ),
    _rule(
        "a snapshot from past the end is not believed",
        "derived",
        "        if offset > end:\n",
        "        if False:\n",
        RECOVERY,
    ),
    _rule(
        "leader epochs that a cut took back are forgotten",
        "derived",
        "    epochs.truncate(end)\n",
        "",
        *HISTORIES,
    ),
    # what an index says of time
    _rule(
        "an index alone doesn't say that all of a segment is older",
        "reading",
        "doubt = segment.doubt(timestamp) if segment.end > self.start else None",
        "doubt = None",
        f"{UNIT}/test_doubted.py",
    ),
    _rule(
        "an index alone doesn't say which batch is the newest",
        "reading",
        "            doubt = segment.doubt()\n            if doubt is not None:\n                return doubt\n            if",
        "            if",
        f"{UNIT}/test_doubted.py",
    ),
    _rule(
        "an index alone doesn't say that a segment is old enough to go",
        "retention",
        "if segments[count].doubted is not None:",
        "if False:",
        f"{UNIT}/test_doubted.py",
    ),
    _rule(
        "what was doubted for nothing leaves its index as it is",
        "doubted",
        "if newest.timestamp == doubted[0] and (is_there or doubted[0] < 0):",
        "if False:",
        f"{UNIT}/test_doubted.py",
    ),
    # compaction
    _rule(
        "memory for keys is bounded whatever their number",
        "cleaner.round",
        "                if not latest.room(batch.records_count):\n"
        "                    return batch.base_offset\n",
        "                latest.room(batch.records_count)\n",
        CLEANER,
    ),
    _rule(
        "a batch that is made smaller again keeps its time",
        "cleaner.filtering",
        "return _rewritten(batch, kept_bytes, kept.records_count, times, horizon is not None)",
        "return _rewritten(batch, kept_bytes, kept.records_count, times, False)",
        CLEANER,
    ),
    _rule(
        "names of what was written anew are synced",
        "cleaner.round",
        "self._disk.perform_now([*steps, SyncDirectory(self._plan.directory)])",
        "self._disk.perform_now(steps)",
        CLEANER,
    ),
    _rule(
        "a segment that gets its names stays",
        "cleaner.cleaner",
        "        log.replacing = [segment]\n",
        "",
        CLEANER,
    ),
    _rule(
        "a namesake is not compacted by its predecessor's round",
        "cleaner.cleaner",
        "if log.closed or self._directory.logs.get(candidate.partition) is not log:\n"
        "            self.given_up()",
        "if False:\n            self.given_up()",
        CLEANER,
    ),
    # what is checked before it is served
    _rule(
        "a look computes checksums",
        "checked",
        "if crc32c(chunk[at + CRC_START : at + length]) != crc:",
        "if False:",
        CHECKED,
    ),
    _rule(
        "a batch leaves room for the one behind it",
        "checked",
        "if base < expected or of_epoch < epoch or (base > expected and base > region.holes_until):",
        "if False:",
        CHECKED,
    ),
    _rule(
        "the last batch leaves room for the next segment",
        "checked",
        "        if expected > region.offset_limit:\n",
        "        if False:\n",
        CHECKED,
    ),
    _rule(
        "a segment goes on up to the next one",
        "checked",
        "whole = position < region.limit or not expected < region.offset_limit > region.holes_until",
        "whole = True",
        *CUTS,
    ),
    _rule(
        "an index that lies is not held against the log",
        "checked",
        "return Seen(sure, sure_offset, sound=False, first_fits=False)",
        "return Seen(sure, sure_offset, sound=False)",
        CHECKED,
    ),
    _rule(
        "nothing is served before it was looked at",
        "segment",
        "        if position < self.checked_from:\n            if self.damage",
        "        if False:\n            if self.damage",
        CHECKED,
    ),
    _rule(
        "a slice ends before damage",
        "segment",
        "                end = self.damage\n            unchecked",
        "                pass\n            unchecked",
        CHECKED,
    ),
    _rule(
        "who asks for what is damaged is told so",
        "reading",
        "        if offset >= self.damaged_at:\n",
        "        if False:\n",
        CHECKED,
    ),
    _rule(
        "a damaged log takes no more",
        "reading",
        "        self.failed = True\n        self.damaged_at = min",
        "        self.damaged_at = min",
        CHECKED,
    ),
    # what is durable before something depends on it
    _rule(
        "a refused write is taken back",
        "segment",
        "            self.log.truncate(position)\n            self.torn = False\n",
        "            self.torn = False\n",
        LOG,
    ),
    _rule(
        "new names are synced before what is in the files counts",
        "log",
        "            self.epochs.assign(epoch, self.end)\n            self._owed().names.append(self.directory)",
        "            self.epochs.assign(epoch, self.end)",
        *STATES,
    ),
    _rule(
        "a segment that is full is synced by the next round",
        "unsynced",
        "[file for segment in self.rolled for file in segment.files()] + self.once",
        "list(self.once)",
        *STATES,
    ),
    _rule(
        "a leader epoch is durable before its first batch",
        "log",
        "            steps.append(ReplaceFile(path, encode_epochs(after.entries()), False))\n",
        "            pass\n",
        LOG,
    ),
    _rule(
        "nothing is acknowledged after a failed sync",
        "rounds",
        "            self.failure = error\n",
        "",
        f"{UNIT}/test_rounds.py",
    ),
    _rule(
        "the mark of a clean stop is gone before anything is written",
        "directory",
        "self.disk.perform_now([UnlinkFile(marker), SyncDirectory(self.path)])",
        "pass",
        DIRECTORY,
    ),
    _rule(
        "a log that failed keeps its directory from being marked as clean",
        "directory",
        "sound = all(not log.failed for log in self.logs.values())",
        "sound = True",
        DIRECTORY,
    ),
    _rule(
        "a log without an id gets no recovery point",
        "checkpoint_files",
        "if log.on_disk and (log.topic_id != NO_TOPIC_ID or name in self._adoptable)",
        "if log.on_disk",
        DIRECTORY,
    ),
    _rule(
        "a checkpoint is believed only with its checksum",
        "checkpoints",
        '        if checksum != str(_checksum_of(" ".join(row) for row in rows)):\n',
        "        if False:\n",
        f"{UNIT}/test_checkpoints.py",
    ),
    _rule(
        "partition.metadata is believed only with its checksum",
        "checkpoints",
        "    if fields.get(_CHECKSUM_LINE, checksum) != checksum:\n",
        "    if False:\n",
        f"{UNIT}/test_checkpoints.py",
    ),
    _rule(
        "an index of aborted transactions is believed only as the checkpoint has it",
        "derived",
        "if base not in work.aborted_unsound and is_like != seals.get(base):",
        "if False:",
        f"{UNIT}/test_recovery_of_transactions.py",
    ),
    _rule(
        "indexes of aborted transactions that nothing vouches for are made anew",
        "derived",
        "            work.aborted_unsound |= {one.base_offset for one in segments}\n",
        "            pass\n",
        f"{UNIT}/test_recovery_of_transactions.py",
    ),
    _rule(
        "damage that was found is written down",
        "log",
        "        if self.damaged_at < before and not self.closed:\n",
        "        if False:\n",
        "tests/sim/test_reads_and_damage.py",
    ),
    _rule(
        "what was found damaged stays out of use over a restart",
        "recovery",
        "    failed = failed or damaged_at is not None\n",
        "",
        "tests/sim/test_reads_and_damage.py",
    ),
    _rule(
        "an empty first segment says where the log begins",
        "recovery",
        "        stays = [segments[0], segments[-1]]\n",
        "        pass\n",
        RECOVERY,
    ),
    _rule(
        "a first segment is not empty where nothing was compacted",
        "recovery",
        "if len(segments) > 1 and segments[1].base_offset <= work.holes_until:",
        "if len(segments) > 1:",
        RECOVERY,
    ),
    _rule(
        "a producer snapshot is believed only with its checksum",
        "producers",
        "    if crc32c(view[6:]) != checksum:\n",
        "    if False:\n",
        f"{UNIT}/test_producers.py",
        RECOVERY,
    ),
    Mutant(
        "a metadata store that lacks transactions is refused",
        "ottla.host.sqlite_store",
        "if last < self._known.revision:",
        "if False:",
        [STORE],
    ),
    Mutant(
        "a transaction of the metadata store is marked before it is answered",
        "ottla.host.sqlite_store",
        "if any(job.update is not None for job in jobs):",
        "if False:",
        [STORE],
    ),
    Mutant(
        "the log of a metadata store that is refused is brought back",
        "ottla.host.sqlite_store",
        "                self._bring_back(wal)\n",
        "",
        [STORE],
    ),
    Mutant(
        "topics whose metadata store was lost are not taken over unasked",
        "ottla.replication.adoption",
        "if not is_kafkas and not is_ours:",
        "if False:",
        ["tests/unit/replication/test_adoption.py"],
    ),
    _rule(
        "an index of half an entry is made anew",
        "index",
        "    if size % entry.size:\n        return None\n",
        "",
        RECOVERY,
    ),
    # one by one: each of these no test missed once
    _rule(
        "only what goes on shows that something is missing before it",
        "scanning",
        "if not sane(batch) or batch.base_offset < expected:",
        "if not sane(batch):",
        f"{UNIT}/test_scanning.py",
    ),
    _rule(
        "a deleted log keeps its name until no round is in flight",
        "directory",
        "self.rounds.when_idle(remove)",
        "remove()",
        f"{UNIT}/test_directory.py",
    ),
    _rule(
        "a closed segment's index of aborted transactions ends with its last entry",
        "segment",
        "            self.aborted.settle()\n        if self._reserved",
        "            pass\n        if self._reserved",
        f"{UNIT}/test_log_in_transactions.py",
    ),
    _rule(
        "a closed segment gives back what was reserved",
        "segment",
        "            self.log.truncate(self.size)\n            self._reserved = self.size",
        "            self._reserved = self.size",
        f"{UNIT}/test_log.py",
    ),
    _rule(
        "a segment that ends early was compacted, or it is damage",
        "reading",
        "piece = segment.check_end()  # it ends early: compacted, or cut?",
        "pass",
        f"{UNIT}/test_checked.py",
    ),
    _rule(
        "of two batches that overlap neither is believed",
        "recovery",
        "room_until, checked = Offset(batch.base_offset), None",
        "checked = None",
        f"{UNIT}/test_recovery.py",
    ),
    _rule(
        "a segment that was compacted may have holes",
        "reading",
        "        new.holes_until = ANYWHERE\n",
        "",
        f"{UNIT}/test_scrub.py",
    ),
    _rule(
        "an index is believed after a crash where its batch is there",
        "resuming",
        "if not sane(batch) or batch.last_offset != segment.base_offset + relative:",
        "if not sane(batch):",
        f"{UNIT}/test_resuming.py",
    ),
    _rule(
        "zeros in an index are not believed after a crash",
        "resuming",
        "    if offsets[1][0] == 0 or times[0][0] == 0:\n        return None  # zeros",
        "    if False:\n        return None  # zeros",
        f"{UNIT}/test_resuming.py",
    ),
    _rule(
        "a recovery point does not move back",
        "log",
        "self.recovery_point = max(self.recovery_point, position.offset)",
        "self.recovery_point = position.offset",
        f"{UNIT}/test_log.py",
    ),
    _rule(
        "a recovery point is not before the first segment",
        "log",
        "        self.recovery_point = max(self.recovery_point, self.segments[0].base_offset)\n",
        "",
        f"{UNIT}/test_log.py",
    ),
    _rule(
        "a torn tail that was cut does not come back",
        "recovery",
        "        segment.log.truncate(sound)\n        work.touched.append(segment.log)\n",
        "        segment.log.truncate(sound)\n",
        f"{UNIT}/test_recovery.py",
    ),
    _rule(
        "snapshots where segments begin stay",
        "derived",
        "        elif offset in bases:\n            continue\n",
        "",
        f"{UNIT}/test_recovery.py",
    ),
]


def test_each_rule_is_there_to_be_taken_out():
    assert len({one.rule for one in MUTANTS}) == len(MUTANTS) >= 25
    for mutant in MUTANTS:
        compile(mutant.source(), mutant.module, "exec")


def test_no_rule_of_storage_can_go_without_a_test_that_misses_it():
    survivors = {}
    for mutant in chosen(MUTANTS):
        said = survives(mutant)
        if said is not None:
            survivors[mutant.rule] = said
    if survivors:
        pytest.fail("\n".join(f"{rule}: {said}" for rule, said in survivors.items()))
