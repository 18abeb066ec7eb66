// The new group protocol (KIP-848) with the Java client: members, a pattern, static members, offsets.
import java.time.Duration;
import java.util.*;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.*;

public class ConsumerGroups {
    static String bootstrap;
    static final Set<String> seen = new HashSet<>();
    static int taken = 0;

    static KafkaConsumer<String, String> member(String group, String protocol, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "group.id", group, "group.protocol", protocol,
            "auto.offset.reset", "earliest", "enable.auto.commit", false, "metadata.max.age.ms", 1000));
        if (protocol.equals("classic")) {
            config.put("heartbeat.interval.ms", 300);
            config.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        }
        config.putAll(more);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    @SafeVarargs
    static void until(String what, BooleanSupplier condition, KafkaConsumer<String, String>... members) {
        long end = System.currentTimeMillis() + 120_000;
        while (!condition.getAsBoolean()) {
            for (var member : members) {
                for (var record : member.poll(Duration.ofMillis(50))) {
                    seen.add(record.topic() + record.partition() + "/" + record.offset());
                    taken++;
                }
                try {
                    member.commitSync();
                } catch (RebalanceInProgressException rejoining) {
                    // of the classic protocol while it rebalances: the next poll goes on with it
                }
            }
            if (System.currentTimeMillis() > end) {
                var owned = new ArrayList<String>();
                for (var member : members) owned.add(member.assignment().toString());
                throw new IllegalStateException(what + ": " + owned + ", seen " + seen.size());
            }
        }
        System.out.println(what);
    }

    @SafeVarargs
    static BooleanSupplier shared(int count, KafkaConsumer<String, String>... members) {
        return () -> {
            var all = new HashSet<TopicPartition>();
            int sum = 0;
            boolean even = true;
            for (var member : members) {
                sum += member.assignment().size();
                even &= member.assignment().size() >= count / members.length;
                all.addAll(member.assignment());
            }
            return even && sum == count && all.size() == count;
        };
    }

    static void fill(String topic, int count) {
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap), new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < count; n++) producer.send(new ProducerRecord<>(topic, n % 4, null, "v" + n));
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
            admin.createTopics(List.of(new NewTopic("t", 4, (short) 1))).all().get();
            fill("t", 400);
            var first = member("g", "consumer", Map.of());
            var second = member("g", "consumer", Map.of());
            first.subscribe(List.of("t"));
            second.subscribe(List.of("t"));
            until("two share", shared(4, first, second), first, second);
            until("all came", () -> seen.size() == 400, first, second);
            var told = admin.describeConsumerGroups(List.of("g")).all().get().get("g");
            System.out.println(told.type() + " " + told.groupState() + " " + told.partitionAssignor() + " " + told.members().size());
            first.close();
            until("one has all", shared(4, second), second);
            fill("t", 400);
            until("no more came than were sent", () -> seen.size() == 800 && taken == 800, second);
            var third = member("g", "classic", Map.of());
            third.subscribe(List.of("t"));
            until("both protocols share", shared(4, second, third), second, third);
            second.close();
            until("the classic one has all", shared(4, third), third);
            System.out.println(admin.listGroups().all().get().iterator().next().type().get());
            third.close();
            long sum = 0;
            for (var one : admin.listConsumerGroupOffsets("g").partitionsToOffsetAndMetadata().get().values()) sum += one.offset();
            System.out.println("committed " + sum);

            var pattern = member("p", "consumer", Map.of());
            pattern.subscribe(new SubscriptionPattern("(t|u.*)"));
            until("a pattern", shared(4, pattern), pattern);
            admin.createTopics(List.of(new NewTopic("u1", 2, (short) 1), new NewTopic("v", 2, (short) 1))).all().get();
            until("a pattern and a new topic", shared(6, pattern), pattern);
            pattern.close();
            var wrong = member("w", "consumer", Map.of());
            wrong.subscribe(new SubscriptionPattern("(t"));
            try {
                until("a pattern that is none", () -> false, wrong);
            } catch (Exception refused) {
                System.out.println(refused.getClass().getSimpleName());
            }
            wrong.close();

            var one = member("s", "consumer", Map.of("group.instance.id", "i"));
            one.subscribe(List.of("t"));
            until("a static member", shared(4, one), one);
            var rival = member("s", "consumer", Map.of("group.instance.id", "i"));
            rival.subscribe(List.of("t"));
            try {
                until("a rival", () -> false, one, rival);
            } catch (Exception refused) {
                System.out.println(refused.getClass().getSimpleName());
            }
            rival.close();
            one.close();
            var back = member("s", "consumer", Map.of("group.instance.id", "i"));
            back.subscribe(List.of("t"));
            until("it is back", shared(4, back), back);
            back.close();
        }
    }
}
