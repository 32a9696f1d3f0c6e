import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own producer and consumer, fed from and written to the suite's record files. A record is, big endian:
 * partition i32, offset i64, timestamp i64, key, value, header count i32, and for each header name and value;
 * bytes are a length i32 (-1 for null) and the bytes.
 */
final class Records {
    /** FILE TOPIC OUT-FILE key=value... ; the answer is one line for each record: partition and offset. */
    static String produce(String[] words) throws Exception {
        Properties config = config(words, 3);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
                DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(words[0]), 1 << 20))) {
            int partition;
            while ((partition = nextPartition(in)) != Integer.MIN_VALUE) {
                in.readLong();
                long timestamp = in.readLong();
                byte[] key = bytes(in);
                byte[] value = bytes(in);
                List<Header> headers = new ArrayList<>();
                for (int left = in.readInt(); left > 0; left--) {
                    headers.add(new RecordHeader(new String(bytes(in), "UTF-8"), bytes(in)));
                }
                sent.add(producer.send(new ProducerRecord<>(words[1], partition < 0 ? null : partition, timestamp, key, value, headers)));
            }
            producer.flush();
        }
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(words[2])))) {
            for (Future<RecordMetadata> one : sent) {
                out.writeInt(one.get().partition());
                out.writeLong(one.get().offset());
            }
        }
        return String.valueOf(sent.size());
    }

    /** TOPIC COUNT SECONDS OUT-FILE key=value... ; subscribes, reads COUNT records, commits, closes. */
    static String consume(String[] words) throws Exception {
        Properties config = config(words, 4);
        int wanted = Integer.parseInt(words[1]);
        int read = 0;
        long deadline = System.nanoTime() + Long.parseLong(words[2]) * 1_000_000_000L;
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(words[3]), 1 << 20))) {
            consumer.subscribe(List.of(words[0]));
            while (read < wanted && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> one : consumer.poll(Duration.ofMillis(200))) {
                    write(out, one);
                    read++;
                }
            }
            consumer.commitSync();
        }
        return String.valueOf(read);
    }

    private static void write(DataOutputStream out, ConsumerRecord<byte[], byte[]> one) throws Exception {
        out.writeInt(one.partition());
        out.writeLong(one.offset());
        out.writeLong(one.timestamp());
        bytes(out, one.key());
        bytes(out, one.value());
        Header[] headers = one.headers().toArray();
        out.writeInt(headers.length);
        for (Header header : headers) {
            bytes(out, header.key().getBytes("UTF-8"));
            bytes(out, header.value());
        }
    }

    private static int nextPartition(DataInputStream in) throws Exception {
        in.mark(1);
        if (in.read() < 0) {
            return Integer.MIN_VALUE;
        }
        in.reset();
        return in.readInt();
    }

    private static byte[] bytes(DataInputStream in) throws Exception {
        int length = in.readInt();
        return length < 0 ? null : in.readNBytes(length);
    }

    private static void bytes(DataOutputStream out, byte[] bytes) throws Exception {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null) {
            out.write(bytes);
        }
    }

    private static Properties config(String[] words, int from) {
        Properties config = new Properties();
        for (String pair : Arrays.asList(words).subList(from, words.length)) {
            int at = pair.indexOf('=');
            config.put(pair.substring(0, at), pair.substring(at + 1));
        }
        return config;
    }

    private Records() { }
}
