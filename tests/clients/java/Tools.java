// Runs Apache Kafka's command line tools one after the other in one process: a Java for each would
// take seconds each. A line of stdin is a command, its words parted by tabs: class, what the tool
// finds in its own stdin (\n for ends of lines), arguments. Answered with what the tool printed and
// a last line, "= " and its exit code.
import java.io.*;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.utils.Exit;

public class Tools {
    /** What a tool ended with: its first word counts, as some catch this and end once more. */
    static class Left extends RuntimeException {
        static Left first;

        final int status;
        final String told;

        Left(int status, String told) {
            this.status = status;
            this.told = told;
            first = first == null ? this : first;
        }
    }

    public static void main(String[] arguments) {
        var err = System.err; // before a tool gets its own
        try {
            run(arguments);
        } catch (Throwable thrown) { // the launcher fails of itself on one without a stack trace
            thrown.printStackTrace(err);
            System.exit(1);
        }
    }

    static void run(String[] arguments) throws Exception {
        var commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = System.out;
        var atExit = new ArrayList<Runnable>(); // ConsoleProducer sends its last records there
        Exit.setShutdownHookAdder((name, hook) -> atExit.add(hook));
        var told = new ByteArrayOutputStream();
        Exit.setExitProcedure((status, message) -> {
            if (message != null) System.err.println(message);
            throw new Left(status, told.toString(StandardCharsets.UTF_8));
        });
        for (String line; (line = commands.readLine()) != null; ) {
            var words = new ArrayList<>(List.of(line.split("\t", -1)));
            var tool = Class.forName(words.remove(0));
            var input = words.remove(0).replace("\\n", "\n").replace("\\t", "\t");
            told.reset();
            Left.first = null;
            var printed = new PrintStream(told, true);
            System.setOut(printed);
            System.setErr(printed);
            System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
            try {
                tool.getMethod("main", String[].class).invoke(null, (Object) words.toArray(new String[0]));
                if (Left.first == null) new Left(0, told.toString(StandardCharsets.UTF_8));
            } catch (InvocationTargetException ended) {
                if (Left.first == null) {
                    ended.getCause().printStackTrace();
                    new Left(99, told.toString(StandardCharsets.UTF_8));
                }
            }
            atExit.forEach(Runnable::run);
            atExit.clear();
            out.print(Left.first.told);
            out.println("= " + Left.first.status);
            out.flush();
        }
    }
}
