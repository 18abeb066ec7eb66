// Groups of the classic protocol with the Java client: eager, cooperative, static, automatic commits.
import java.time.Duration;
import java.util.*;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class ClassicGroups {
    static final String TOPIC = "java-classic";
    static String bootstrap;
    static int taken = 0;

    static KafkaConsumer<String, String> member(String group, String assignor, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "group.id", group, "group.protocol", "classic",
            "auto.offset.reset", "earliest", "enable.auto.commit", false, "heartbeat.interval.ms", 300,
            "session.timeout.ms", 30_000,
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor));
        config.putAll(more);
        var made = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        made.subscribe(List.of(TOPIC));
        return made;
    }

    @SafeVarargs
    static void until(String what, BooleanSupplier condition, KafkaConsumer<String, String>... members) {
        long end = System.currentTimeMillis() + 120_000;
        while (!condition.getAsBoolean()) {
            for (var member : members) taken += member.poll(Duration.ofMillis(50)).count();
            if (System.currentTimeMillis() > end) throw new IllegalStateException(what + ", taken " + taken);
        }
        System.out.println(what);
    }

    @SafeVarargs
    static BooleanSupplier shared(KafkaConsumer<String, String>... members) {
        return () -> {
            var all = new HashSet<TopicPartition>();
            int sum = 0;
            for (var member : members) {
                if (member.assignment().isEmpty()) return false;
                sum += member.assignment().size();
                all.addAll(member.assignment());
            }
            return sum == 4 && all.size() == 4;
        };
    }

    static void fill(int count) {
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap), new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < count; n++) producer.send(new ProducerRecord<>(TOPIC, n % 4, null, "v" + n));
        }
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
            admin.createTopics(List.of(new NewTopic(TOPIC, 4, (short) 1))).all().get();
            fill(40);
            for (var assignor : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
                System.out.println(assignor);
                taken = 0;
                var first = member(assignor, assignor, Map.of());
                until("all came", () -> taken == 40, first);
                first.commitSync();
                var second = member(assignor, assignor, Map.of());
                until("two share", shared(first, second), first, second);
                var told = admin.describeConsumerGroups(List.of(assignor)).all().get().get(assignor);
                System.out.println(told.groupState() + " " + told.partitionAssignor() + " " + told.members().size());
                first.close();
                until("one has all", shared(second), second);
                System.out.println("no more came than were sent: " + (taken == 40));
                second.close();
                admin.deleteConsumerGroups(List.of(assignor)).all().get();
            }

            var one = member("java-static", "RangeAssignor", Map.of("group.instance.id", "one"));
            var two = member("java-static", "RangeAssignor", Map.of("group.instance.id", "two"));
            until("static members share", shared(one, two), one, two);
            var had = one.assignment();
            one.close();
            var again = member("java-static", "RangeAssignor", Map.of("group.instance.id", "one"));
            until("it is back", () -> again.assignment().equals(had), again, two);
            var thief = member("java-static", "RangeAssignor", Map.of("group.instance.id", "two"));
            try {
                until("never", () -> false, thief, two);
            } catch (org.apache.kafka.common.errors.FencedInstanceIdException fenced) {
                System.out.println("FencedInstanceIdException");
            }
            for (var each : List.of(again, two, thief)) each.close();

            taken = 0;
            var automatic = member("java-automatic", "RangeAssignor", Map.of("enable.auto.commit", true));
            until("all came", () -> taken == 40, automatic);
            automatic.close();
            long committed = 0;
            for (var each : admin.listConsumerGroupOffsets("java-automatic").partitionsToOffsetAndMetadata().get().values()) committed += each.offset();
            System.out.println("committed " + committed);
        }
    }
}
