// Prints the options of Apache Kafka's broker and topics, one JSON object a line.
import java.util.*;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.server.config.AbstractKafkaConfig;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.storage.internals.log.LogConfig;

public class Options {
    static String text(ConfigDef.ConfigKey key) {
        if (key.defaultValue == null || key.defaultValue == ConfigDef.NO_DEFAULT_VALUE) return null;
        return ConfigDef.convertToString(key.defaultValue, key.type);
    }

    static void tell(String of, ConfigDef options, Set<String> live) {
        for (var key : options.configKeys().values()) {
            if (key.internalConfig) continue;
            var text = text(key);
            System.out.printf(
                "{\"of\": \"%s\", \"name\": \"%s\", \"type\": \"%s\", \"default\": %s, \"live\": %s}%n",
                of, key.name, key.type, text == null ? "null" : "\"" + text.replace("\"", "\\\"") + "\"",
                live.contains(key.name));
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

    static void run(String[] arguments) {
        var live = DynamicBrokerConfig.ALL_DYNAMIC_CONFIGS;
        tell("broker", AbstractKafkaConfig.CONFIG_DEF, live);
        tell("topic", LogConfig.configDefCopy(), Set.of());
    }
}
