// Reads a data directory's small text files with Apache Kafka's own readers, and prints what they say.
// usage: Checkpoints DIRECTORY

import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.metadata.properties.MetaProperties;
import org.apache.kafka.storage.internals.checkpoint.LeaderEpochCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.OffsetCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadataFile;

public class Checkpoints {
  public static void main(String[] words) {
    try {
      run(words);
    } catch (Throwable thrown) { // the launcher fails of itself on one without a stack trace
      thrown.printStackTrace();
      System.exit(1);
    }
  }

  static void run(String[] words) throws Exception {
    File directory = new File(words[0]);
    for (File file : directory.listFiles()) {
      if (file.getName().endsWith("-offset-checkpoint")) {
        TreeMap<String, Long> offsets = new TreeMap<>();
        new OffsetCheckpointFile(file, null)
            .read()
            .forEach((partition, offset) -> offsets.put(partition.toString(), offset));
        System.out.println(file.getName() + " " + offsets);
      }
    }
    Properties properties = new Properties();
    try (InputStream input = new FileInputStream(new File(directory, "meta.properties"))) {
      properties.load(input);
    }
    System.out.println("meta.properties " + new MetaProperties.Builder(properties).build());
    for (File partition : directory.listFiles(File::isDirectory)) {
      File metadata = PartitionMetadataFile.newFile(partition);
      if (metadata.exists()) {
        System.out.println(
            partition.getName() + " " + new PartitionMetadataFile(metadata, null).read().topicId());
      }
      File epochs = LeaderEpochCheckpointFile.newFile(partition);
      if (epochs.exists()) {
        System.out.println(
            partition.getName() + " " + new LeaderEpochCheckpointFile(epochs, null).read());
      }
    }
  }
}
