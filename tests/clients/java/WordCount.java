// Kafka Streams counts words with exactly_once_v2, in two instances, one of which leaves half way.
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;

public class WordCount {
    static String bootstrap;
    static final String[] WORDS = "all streams lead to kafka hello kafka streams join kafka summit".split(" ");

    static KafkaStreams counting(String folder) {
        var builder = new StreamsBuilder();
        builder.<String, String>stream("lines")
            .flatMapValues(line -> List.of(line.split(" ")))
            .groupBy((key, word) -> word)
            .count(Materialized.as("counts"))
            .toStream().to("counted", Produced.with(Serdes.String(), Serdes.Long()));
        var config = new Properties();
        config.putAll(Map.of("application.id", "word-count", "bootstrap.servers", bootstrap,
            "processing.guarantee", "exactly_once_v2", "commit.interval.ms", 100, "num.stream.threads", 2,
            "state.dir", folder, "default.key.serde", Serdes.StringSerde.class, "default.value.serde", Serdes.StringSerde.class));
        config.put("consumer.auto.offset.reset", "earliest");
        config.put("consumer.session.timeout.ms", 6000);
        config.put("internal.leave.group.on.close", true);
        var streams = new KafkaStreams(builder.build(), config);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
        return streams;
    }

    static void write(int from, int until) {
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap), new StringSerializer(), new StringSerializer())) {
            for (int n = from; n < until; n++) {
                var line = WORDS[n % WORDS.length] + " " + WORDS[(n * 7) % WORDS.length];
                producer.send(new ProducerRecord<>("lines", n % 3, null, line));
            }
        }
    }

    /** The last count of each word, and whether every count from 1 on came in order and once for each word. */
    static Map<String, Long> read(long total) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", "unused", "auto.offset.reset", "earliest",
            "enable.auto.commit", false, "isolation.level", "read_committed");
        var counts = new TreeMap<String, Long>();
        try (var reader = new KafkaConsumer<>(config, new StringDeserializer(), new LongDeserializer())) {
            reader.assign(List.of(new TopicPartition("counted", 0), new TopicPartition("counted", 1)));
            reader.seekToBeginning(reader.assignment());
            long until = System.currentTimeMillis() + 180_000;
            while (counts.values().stream().mapToLong(Long::longValue).sum() < total) {
                if (System.currentTimeMillis() > until) throw new IllegalStateException("so far " + counts + " of " + total);
                for (var record : reader.poll(Duration.ofMillis(100))) {
                    var before = counts.put(record.key(), record.value());
                    if (before != null && before >= record.value()) throw new IllegalStateException(record.key() + " went back to " + record.value());
                }
            }
        }
        return counts;
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
            admin.createTopics(List.of(new NewTopic("lines", 3, (short) 1), new NewTopic("counted", 2, (short) 1))).all().get();
        }
        var expected = new TreeMap<String, Long>();
        for (int n = 0; n < 600; n++) {
            expected.merge(WORDS[n % WORDS.length], 1L, Long::sum);
            expected.merge(WORDS[(n * 7) % WORDS.length], 1L, Long::sum);
        }
        write(0, 300);
        var first = counting(Path.of(arguments[1], "first").toString());
        read(600);
        System.out.println("half");
        var second = counting(Path.of(arguments[1], "second").toString());
        write(300, 450);
        first.close(Duration.ofSeconds(60));
        write(450, 600);
        var found = read(1200);
        second.close(Duration.ofSeconds(60));
        System.out.println(found.equals(expected) ? "all, once" : "found " + found + ", not " + expected);
    }
}
