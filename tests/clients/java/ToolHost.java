import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs many of Kafka's command-line tools, and the record drivers of {@link Records}, in one JVM: a JVM start costs more than
 * most of the tools do. Listens on a loopback port that it prints; each connection carries one command:
 * a count and that many strings in, an exit status and a message out.
 */
public final class ToolHost {
    /** Thrown in the place of System.exit, so that a tool ends and the JVM does not. */
    static final class Ended extends RuntimeException {
        final int status;

        Ended(int status, String message) {
            super(message, null, false, false);
            this.status = status;
        }
    }

    /** Scala's Console keeps the stream it saw first, so the stream stays and what is behind it changes. */
    static final class Switched extends OutputStream {
        volatile OutputStream target;

        Switched(OutputStream first) {
            target = first;
        }

        @Override
        public void write(int b) throws java.io.IOException {
            target.write(b);
        }

        @Override
        public void write(byte[] b, int off, int len) throws java.io.IOException {
            target.write(b, off, len);
        }

        @Override
        public void flush() throws java.io.IOException {
            target.flush();
        }
    }

    private static final PrintStream TERMINAL = System.out;
    private static final Switched OUT = new Switched(System.out);
    private static final Object ONE_TOOL_AT_A_TIME = new Object();

    /** What a tool wanted to run at the end of its JVM: some flush and report only there. */
    private static final List<Runnable> HOOKS = new CopyOnWriteArrayList<>();
    private static final AtomicReference<Ended> FIRST_END = new AtomicReference<>();

    /** A tool may catch what stands for its exit and then exit again: the first status counts. */
    private static Ended ended(int status, String message) {
        FIRST_END.compareAndSet(null, new Ended(status, message));
        return FIRST_END.get();
    }

    public static void main(String[] args) throws Exception {
        PrintStream shared = new PrintStream(OUT, true, StandardCharsets.UTF_8);
        System.setOut(shared);
        Exit.setExitProcedure((status, message) -> {
            throw ended(status, message);
        });
        Exit.setHaltProcedure((status, message) -> {
            throw ended(status, message);
        });
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        try (ServerSocket server = new ServerSocket(0, 16, InetAddress.getByName("127.0.0.1"))) {
            TERMINAL.println("PORT " + server.getLocalPort());
            TERMINAL.flush();
            while (true) {
                Socket peer = server.accept();
                Thread worker = new Thread(() -> serve(peer), "command");
                worker.setDaemon(true);
                worker.start();
            }
        }
    }

    private static void serve(Socket peer) {
        try (peer) {
            DataInputStream in = new DataInputStream(new BufferedInputStream(peer.getInputStream()));
            String[] words = new String[in.readInt()];
            for (int i = 0; i < words.length; i++) {
                words[i] = new String(in.readNBytes(in.readInt()), StandardCharsets.UTF_8);
            }
            int status = 0;
            String message = "";
            try {
                message = run(words);
            } catch (Ended e) {
                status = e.status;
                message = String.valueOf(e.getMessage());
            } catch (Throwable e) {
                status = 1;
                java.io.StringWriter trace = new java.io.StringWriter();
                e.printStackTrace(new java.io.PrintWriter(trace));
                message = trace.toString();
            }
            byte[] text = message.getBytes(StandardCharsets.UTF_8);
            DataOutputStream out = new DataOutputStream(peer.getOutputStream());
            out.writeInt(status);
            out.writeInt(text.length);
            out.write(text);
            out.flush();
        } catch (java.io.IOException e) {
            System.err.println("command connection: " + e);
        }
    }

    private static String run(String[] words) throws Exception {
        String[] rest = Arrays.copyOfRange(words, 1, words.length);
        return switch (words[0]) {
            case "tool" -> tool(rest);
            case "produce" -> Records.produce(rest);
            case "consume" -> Records.consume(rest);
            default -> throw new IllegalArgumentException("unknown command " + words[0]);
        };
    }

    /** CLASS STDIN-FILE-OR-EMPTY STDOUT-FILE ARGUMENTS... */
    private static String tool(String[] words) throws Exception {
        synchronized (ONE_TOOL_AT_A_TIME) {
            FIRST_END.set(null);
            HOOKS.clear();
            InputStream terminalIn = System.in;
            PrintStream terminalErr = System.err;
            try (FileOutputStream file = new FileOutputStream(words[2]);
                    PrintStream err = new PrintStream(new FileOutputStream(words[2] + ".err"), true, StandardCharsets.UTF_8);
                    InputStream stdin = words[1].isEmpty() ? new ByteArrayInputStream(new byte[0]) : new FileInputStream(words[1])) {
                OUT.target = file;
                System.setErr(err);
                System.setIn(stdin);
                try {
                    Class.forName(words[0]).getMethod("main", String[].class)
                        .invoke(null, (Object) Arrays.copyOfRange(words, 3, words.length));
                } catch (java.lang.reflect.InvocationTargetException e) {
                    if (FIRST_END.get() == null) {
                        throw e;
                    }
                }
                for (Runnable hook : HOOKS) {
                    hook.run();
                }
                System.out.flush();
            } finally {
                System.out.flush();
                OUT.target = TERMINAL;
                System.setErr(terminalErr);
                System.setIn(terminalIn);
            }
            if (FIRST_END.get() != null && FIRST_END.get().status != 0) {
                throw FIRST_END.get();
            }
            return "";
        }
    }

    private ToolHost() { }
}
