// What an admin of one broker asks for, through the Java client: one line for each answer.
import java.util.*;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;

public class AdminTour {
    static final String TOPIC = "tour";
    static final TopicPartition FIRST = new TopicPartition(TOPIC, 0);

    interface Ask {
        Object answer() throws Exception;
    }

    static void say(String what, Ask ask) throws Exception {
        Object told;
        try {
            told = ask.answer();
        } catch (ExecutionException refused) {
            told = refused.getCause().getClass().getSimpleName();
        }
        System.out.println(what + ": " + told);
    }

    static ConfigEntry described(Admin admin, ConfigResource resource, String name) throws Exception {
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        return admin.describeConfigs(List.of(resource), options).all().get().get(resource).get(name);
    }

    static Object set(Admin admin, ConfigResource resource, String name, String value) throws Exception {
        var op = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        return admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all().get();
    }

    static Object feature(Admin admin, String name, int level) throws Exception {
        var update = new FeatureUpdate((short) level, FeatureUpdate.UpgradeType.UPGRADE);
        return admin.updateFeatures(Map.of(name, update), new UpdateFeaturesOptions()).all().get();
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
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            say("create", () -> admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) 1))).all().get());
            say("grow", () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(4))).all().get());
            say("grow again", () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(4))).all().get());
            say("partitions", () -> admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC).partitions().size());

            var topic = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
            var all = new ConfigResource(ConfigResource.Type.BROKER, "");
            say("set", () -> set(admin, topic, "retention.ms", "7"));
            say("set wrong", () -> set(admin, topic, "retention.ms", "-7"));
            say("set for all", () -> set(admin, all, "log.segment.bytes", "2000000"));
            say("topic", () -> described(admin, topic, "retention.ms").value());
            say("type", () -> described(admin, topic, "retention.ms").type());
            say("inherited", () -> described(admin, topic, "segment.bytes").synonyms().get(0).source());
            say("documented", () -> described(admin, topic, "retention.ms").documentation().length() > 10);
            say("resources", () -> admin.listConfigResources().all().get().stream().map(r -> r.type().name()).sorted().toList());

            say("latest", () -> admin.listOffsets(Map.of(FIRST, OffsetSpec.latest())).all().get().get(FIRST).offset());
            say("delete records", () -> admin.deleteRecords(Map.of(FIRST, RecordsToDelete.beforeOffset(0))).all().get());
            say("delete too many", () -> admin.deleteRecords(Map.of(FIRST, RecordsToDelete.beforeOffset(9))).all().get());
            say("sizes", () -> admin.describeLogDirs(List.of(0)).allDescriptions().get().get(0).values().iterator().next().replicaInfos().get(FIRST).size());

            say("elect", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(FIRST)).partitions().get().get(FIRST).get().getClass().getSimpleName());
            say("reassignments", () -> admin.listPartitionReassignments().reassignments().get());
            say("reassign", () -> admin.alterPartitionReassignments(Map.of(FIRST, Optional.of(new NewPartitionReassignment(List.of(5))))).all().get());
            say("cancel", () -> admin.alterPartitionReassignments(Map.of(FIRST, Optional.empty())).all().get());
            say("move", () -> admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica(TOPIC, 0, 0), "/nowhere")).all().get());
            say("feature", () -> feature(admin, "metadata.version", 30));
            say("feature unknown", () -> feature(admin, "nope", 1));

            say("delete", () -> admin.deleteTopics(List.of(TOPIC)).all().get());
            say("topics", () -> admin.listTopics().names().get());
        }
    }
}
