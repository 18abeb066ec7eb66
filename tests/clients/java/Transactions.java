// Transactions with the Java client: both isolations, fencing, timeouts, groups, what an admin sees and ends.
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

public class Transactions {
    static String bootstrap;

    static KafkaProducer<String, String> producer(String id, int timeout) {
        var config = new HashMap<String, Object>(Map.of("bootstrap.servers", bootstrap, "transactional.id", id,
            "transaction.timeout.ms", timeout, "delivery.timeout.ms", 60_000, "request.timeout.ms", 30_000));
        var made = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        made.initTransactions();
        return made;
    }

    static KafkaConsumer<String, String> consumer(String group, boolean committed) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", group,
            "auto.offset.reset", "earliest", "enable.auto.commit", false, "fetch.max.wait.ms", 50,
            "isolation.level", committed ? "read_committed" : "read_uncommitted", "max.poll.records", 7);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    static List<String> read(String topic, boolean committed) {
        var found = new ArrayList<String>();
        try (var reader = consumer("unused", committed)) {
            var place = List.of(new TopicPartition(topic, 0));
            reader.assign(place);
            reader.seekToBeginning(place);
            long end = reader.endOffsets(place).get(place.get(0));
            long until = System.currentTimeMillis() + 120_000;
            while (reader.position(place.get(0)) < end) {
                for (var record : reader.poll(Duration.ofMillis(50))) found.add(record.value());
                if (System.currentTimeMillis() > until) throw new IllegalStateException("no end of " + topic);
            }
        }
        return found;
    }

    static void until(String what, BooleanSupplier condition) throws Exception {
        long end = System.currentTimeMillis() + 120_000;
        while (!condition.getAsBoolean()) {
            if (System.currentTimeMillis() > end) throw new IllegalStateException("waited in vain for " + what);
            Thread.sleep(20);
        }
        System.out.println(what);
    }

    static void send(KafkaProducer<String, String> to, String topic, String value) throws Exception {
        to.send(new ProducerRecord<>(topic, 0, null, value)).get();
    }

    static String thrown(Callable<?> call) {
        try {
            call.call();
            return "nothing";
        } catch (ExecutionException error) {
            return error.getCause().getClass().getSimpleName();
        } catch (Exception error) {
            return error.getClass().getSimpleName();
        }
    }

    static Callable<?> of(Runnable run) {
        return () -> { run.run(); return null; };
    }

    static void isolation() throws Exception {
        try (var one = producer("isolation", 60_000)) {
            one.beginTransaction();
            send(one, "isolation", "a");
            System.out.println("open " + read("isolation", true) + read("isolation", false));
            one.commitTransaction();
            until("committed", () -> read("isolation", true).equals(List.of("a")));
            one.beginTransaction();
            send(one, "isolation", "b");
            one.abortTransaction();
            one.beginTransaction();
            send(one, "isolation", "c");
            one.commitTransaction();
            until("aborted between", () -> read("isolation", true).equals(List.of("a", "c")));
            System.out.println("all " + read("isolation", false));
        }
    }

    static void fencing() throws Exception {
        try (var zombie = producer("fencing", 60_000)) {
            zombie.beginTransaction();
            send(zombie, "fencing", "zombie's");
            try (var one = producer("fencing", 60_000)) {
                one.beginTransaction();
                send(one, "fencing", "mine");
                one.commitTransaction();
                System.out.println("zombie sends: " + thrown(of(() -> { try { send(zombie, "fencing", "late"); }
                    catch (ExecutionException e) { throw (RuntimeException) e.getCause(); }
                    catch (Exception e) { throw (RuntimeException) e; } })));
                System.out.println("zombie commits: " + thrown(of(zombie::commitTransaction)));
                until("only mine", () -> read("fencing", true).equals(List.of("mine")));
            }
        }
    }

    static void timeout() throws Exception {
        try (var one = producer("timeout", 3000)) {
            one.beginTransaction();
            send(one, "timeout", "late");
            try (var other = producer("timeout-other", 60_000)) {
                other.beginTransaction();
                send(other, "timeout", "in time");
                other.commitTransaction();
            }
            until("aborted for it", () -> read("timeout", true).equals(List.of("in time")));
            System.out.println("it commits: " + thrown(of(one::commitTransaction)));
        }
    }

    static void tooLong() {
        System.out.println("too long: " + thrown(() -> producer("too-long", 900_001)));
    }

    static void offsets(Admin admin) throws Exception {
        var place = new TopicPartition("isolation", 0);
        try (var one = producer("offsets", 60_000); var member = consumer("offsets", true)) {
            member.subscribe(List.of("isolation"));
            var taken = new ArrayList<String>();
            until("a member", () -> { member.poll(Duration.ofMillis(50)).forEach(r -> taken.add(r.value())); return taken.size() == 2; });
            one.beginTransaction();
            one.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(3, "first")), member.groupMetadata());
            var stable = new ListConsumerGroupOffsetsOptions().requireStable(true);
            stable.timeoutMs(60_000);
            var asked = Map.of("offsets", new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(place)));
            System.out.println("pending " + admin.listConsumerGroupOffsets(asked, stable).all().get());
            one.commitTransaction();
            until("offset 3", () -> offset(admin, stable, place) == 3);
            one.beginTransaction();
            one.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(9)), member.groupMetadata());
            one.abortTransaction();
            until("offset 3 still", () -> offset(admin, stable, place) == 3);
            one.beginTransaction();
            var stale = new ConsumerGroupMetadata("offsets", 99, member.groupMetadata().memberId(), Optional.empty());
            System.out.println("stale: " + thrown(of(() -> {
                one.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(9)), stale);
                one.commitTransaction();
            })));
            one.abortTransaction();
            one.beginTransaction();
            var nobody = new ConsumerGroupMetadata("offsets", member.groupMetadata().generationId(), "nobody", Optional.empty());
            System.out.println("nobody: " + thrown(of(() -> {
                one.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(9)), nobody);
                one.commitTransaction();
            })));
            one.abortTransaction();
            System.out.println("offset " + offset(admin, stable, place));
        }
    }

    static long offset(Admin admin, ListConsumerGroupOffsetsOptions how, TopicPartition place) {
        try {
            return admin.listConsumerGroupOffsets("offsets", how).partitionsToOffsetAndMetadata().get().get(place).offset();
        } catch (Exception error) {
            return -1;
        }
    }

    static void newGroups() throws Exception {
        var config = new HashMap<String, Object>(Map.of("bootstrap.servers", bootstrap, "group.id", "new-group",
            "group.protocol", "consumer", "auto.offset.reset", "earliest", "enable.auto.commit", false,
            "isolation.level", "read_committed"));
        var place = new TopicPartition("isolation", 0);
        try (var one = producer("new-group", 60_000);
             var member = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            member.subscribe(List.of("isolation"));
            var taken = new ArrayList<String>();
            until("a new member", () -> { member.poll(Duration.ofMillis(50)).forEach(r -> taken.add(r.value())); return taken.size() == 2; });
            one.beginTransaction();
            one.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(3)), member.groupMetadata());
            one.commitTransaction();
            System.out.println("committed " + member.committed(Set.of(place)).get(place).offset());
            one.beginTransaction();
            var id = member.groupMetadata().memberId();
            var stale = new ConsumerGroupMetadata("new-group", member.groupMetadata().generationId() + 5, id, Optional.empty());
            System.out.println("stale: " + thrown(of(() -> {
                one.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(9)), stale);
                one.commitTransaction();
            })));
            one.abortTransaction();
            System.out.println("committed " + member.committed(Set.of(place)).get(place).offset());
        }
    }

    static void administration(Admin admin) throws Exception {
        try (var one = producer("admin-open", 60_000)) {
            one.beginTransaction();
            send(one, "admin", "a");
            var told = admin.describeTransactions(List.of("admin-open")).description("admin-open").get();
            System.out.println(told.state() + " " + told.transactionTimeoutMs() + " " + told.topicPartitions()
                + " " + told.transactionStartTimeMs().isPresent());
            var listed = admin.listTransactions(new ListTransactionsOptions().filterStates(List.of(TransactionState.ONGOING))).all().get();
            System.out.println("listed " + listed.stream().anyMatch(each -> each.transactionalId().equals("admin-open")));
            var place = new TopicPartition("admin", 0);
            var states = admin.describeProducers(List.of(place)).partitionResult(place).get().activeProducers();
            System.out.println("producers " + states.size() + " since " + states.get(0).currentTransactionStartOffset());
            System.out.println("unknown: " + thrown(() -> admin.describeTransactions(List.of("nobody's")).description("nobody's").get()));
            admin.fenceProducers(List.of("admin-open")).all().get();
            until("fenced and aborted", () -> read("admin", true).isEmpty() && state(admin, "admin-open") != TransactionState.ONGOING);
            System.out.println("it commits: " + thrown(of(one::commitTransaction)));
            System.out.println("never there: " + thrown(() -> admin.fenceProducers(List.of("admin-new")).all().get()));
        }
        try (var one = producer("admin-hanging", 60_000)) {
            one.beginTransaction();
            send(one, "admin", "hangs");
            var place = new TopicPartition("admin", 0);
            var state = admin.describeProducers(List.of(place)).partitionResult(place).get().activeProducers().stream()
                .filter(each -> each.currentTransactionStartOffset().isPresent()).findFirst().get();
            admin.abortTransaction(new AbortTransactionSpec(place, state.producerId(), (short) state.producerEpoch(), -1)).all().get();
            System.out.println("aborted by hand " + read("admin", true) + " " + state(admin, "admin-hanging"));
            System.out.println("again: " + thrown(() -> admin.abortTransaction(
                new AbortTransactionSpec(place, state.producerId(), (short) state.producerEpoch(), -1)).all().get()));
        }
    }

    static TransactionState state(Admin admin, String id) {
        try {
            return admin.describeTransactions(List.of(id)).description(id).get().state();
        } catch (Exception error) {
            return TransactionState.UNKNOWN;
        }
    }

    static void loop() throws Exception {
        int count = 200;
        try (var filler = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap), new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < count; n++) filler.send(new ProducerRecord<>("loop-in", n % 3, null, "" + n));
        }
        int turn = 0;
        try (var member = consumer("loop", true); var one = producer("loop", 60_000)) {
            member.subscribe(List.of("loop-in"));
            var ends = Map.of(0, 67L, 1, 67L, 2, 66L);
            var done = new HashMap<Integer, Long>();
            long until = System.currentTimeMillis() + 120_000;
            while (!done.equals(ends)) {
                if (System.currentTimeMillis() > until) throw new IllegalStateException("the loop is at " + done);
                var records = member.poll(Duration.ofMillis(50));
                if (records.isEmpty()) continue;
                one.beginTransaction();
                var offsets = new HashMap<TopicPartition, OffsetAndMetadata>();
                for (var record : records) {
                    one.send(new ProducerRecord<>("loop-out", 0, null, record.value()));
                    offsets.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                one.sendOffsetsToTransaction(offsets, member.groupMetadata());
                if (turn++ % 4 == 2) {
                    one.abortTransaction();
                    var committed = member.committed(member.assignment());
                    for (var place : member.assignment()) {
                        var at = committed.get(place);
                        member.seek(place, at == null ? 0 : at.offset());
                    }
                } else {
                    one.commitTransaction();
                    offsets.forEach((place, at) -> done.put(place.partition(), at.offset()));
                }
            }
        }
        var found = new ArrayList<>(read("loop-out", true));
        found.sort(Comparator.comparing(Integer::valueOf));
        var expected = new ArrayList<String>();
        for (int n = 0; n < count; n++) expected.add("" + n);
        System.out.println("each once " + found.equals(expected));
    }

    public static void main(String[] arguments) {
        try {
            run(arguments);
        } catch (Throwable thrown) { // the launcher fails of itself on one without a stack trace
            thrown.printStackTrace();
            System.exit(1);
        }
    }

    static void run(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var topics = new ArrayList<NewTopic>();
            for (var name : List.of("isolation", "fencing", "timeout", "admin", "loop-out")) topics.add(new NewTopic(name, 1, (short) 1));
            topics.add(new NewTopic("loop-in", 3, (short) 1));
            admin.createTopics(topics).all().get();
            isolation();
            fencing();
            timeout();
            tooLong();
            offsets(admin);
            newGroups();
            administration(admin);
            loop();
        }
    }
}
