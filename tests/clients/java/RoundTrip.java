// The Java client's round trip: writes every flight with every codec, or reads them back, and compares each.
// usage: RoundTrip.java write|read BOOTSTRAP FLIGHTS.tsv PREFIX CODEC ...
// FLIGHTS.tsv holds partition, timestamp, key, value; topic PREFIX-CODEC holds them. Prints "ok CODEC COUNT" for each.
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

public class RoundTrip {
    record Flight(int partition, long timestamp, String key, String value) {}

    public static void main(String[] args) {
        try {
            run(args);
        } catch (Throwable thrown) { // the launcher fails of itself on one without a stack trace
            thrown.printStackTrace();
            System.exit(1);
        }
    }

    static void run(String[] args) throws Exception {
        List<Flight> flights = new ArrayList<>();
        int partitions = 0;
        for (String line : Files.readAllLines(Path.of(args[2]))) {
            String[] part = line.split("\t", 4);
            Flight flight = new Flight(Integer.parseInt(part[0]), Long.parseLong(part[1]), part[2], part[3]);
            flights.add(flight);
            partitions = Math.max(partitions, flight.partition() + 1);
        }
        for (String codec : Arrays.copyOfRange(args, 4, args.length)) {
            String topic = args[3] + "-" + codec;
            if (args[0].equals("write")) {
                write(args[1], topic, codec, flights, partitions);
            }
            read(args[1], topic, flights, partitions);
            System.out.println("ok " + codec + " " + flights.size());
        }
    }

    static void write(String bootstrap, String topic, String codec, List<Flight> flights, int partitions) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            NewTopic wanted = new NewTopic(topic, Optional.of(partitions), Optional.empty()).configs(Map.of("retention.ms", "-1"));
            admin.createTopics(List.of(wanted)).all().get(120, TimeUnit.SECONDS);
            int found = admin.describeTopics(List.of(topic)).allTopicNames().get(120, TimeUnit.SECONDS).get(topic).partitions().size();
            check(found == partitions, "partitions described: " + found);
        }
        // acks=all and idempotence are the Java client's defaults
        Map<String, Object> how = Map.of("bootstrap.servers", bootstrap, "compression.type", codec, "linger.ms", 20);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (Producer<String, String> producer = new KafkaProducer<>(how, new StringSerializer(), new StringSerializer())) {
            for (Flight f : flights) {
                ProducerRecord<String, String> one = new ProducerRecord<>(topic, f.partition(), f.timestamp(), f.key(), f.value());
                one.headers().add(new RecordHeader("origin", f.key().getBytes("UTF-8")));
                sent.add(producer.send(one));
            }
        }
        long[] next = new long[partitions];
        for (int i = 0; i < sent.size(); i++) {
            RecordMetadata told = sent.get(i).get(120, TimeUnit.SECONDS);
            check(told.offset() == next[told.partition()]++, "record " + i + " was acknowledged at " + told);
        }
    }

    static void read(String bootstrap, String topic, List<Flight> flights, int partitions) throws Exception {
        List<Deque<Flight>> expected = new ArrayList<>();
        List<TopicPartition> all = new ArrayList<>();
        for (int p = 0; p < partitions; p++) {
            expected.add(new ArrayDeque<>());
            all.add(new TopicPartition(topic, p));
        }
        flights.forEach(f -> expected.get(f.partition()).add(f));
        Map<String, Object> how = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false, "max.poll.records", 10_000, "fetch.max.wait.ms", 50);
        try (Consumer<String, String> consumer = new KafkaConsumer<>(how, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            for (TopicPartition one : all) {
                check(ends.get(one) == expected.get(one.partition()).size(), one + " ends at " + ends.get(one));
            }
            int missing = flights.size();
            while (missing > 0) {
                ConsumerRecords<String, String> polled = consumer.poll(Duration.ofSeconds(120));
                check(!polled.isEmpty(), missing + " records did not come");
                for (ConsumerRecord<String, String> got : polled) {
                    Flight f = expected.get(got.partition()).poll();
                    String header = new String(got.headers().lastHeader("origin").value(), "UTF-8");
                    check(f != null && f.equals(new Flight(got.partition(), got.timestamp(), got.key(), got.value()))
                            && header.equals(f.key()), "differs: " + got);
                    missing--;
                }
            }
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new IllegalStateException(what);
        }
    }
}
