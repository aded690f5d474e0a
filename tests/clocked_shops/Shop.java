import com.sun.net.httpserver.HttpServer;
import java.io.FileInputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.sql.Connection;
import java.sql.DriverManager;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Threads: four for requests, and a scheduled task that compares clocks every minute, and looks whether the time is over. */
public class Shop {
    static final long SWEEP_MS = 1000 * Long.parseLong(System.getenv("SWEEP_SECONDS"));
    static final Pattern NOW = Pattern.compile("\"now\": ?\"([^\"]+)\"");
    static final HttpClient psp = HttpClient.newHttpClient();
    static final ThreadLocal<Connection> database = new ThreadLocal<>();
    static HttpClient upstream;
    static long due = System.currentTimeMillis() + SWEEP_MS, apart;
    static int compared;

    static HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(System.getenv("PSP_URL") + path)).timeout(Duration.ofSeconds(10))
            .header("X-API-KEY", System.getenv("PSP_API_KEY")).header("Content-Type", "application/json");
    }

    static void sweep() {
        try {
            var now = System.currentTimeMillis();
            var clock = NOW.matcher(psp.send(request("/sandbox/v1/clock").build(), BodyHandlers.ofString()).body());
            if (!clock.find()) throw new IllegalStateException("there is no clock");
            compared++;
            apart = Math.max(apart, Math.abs(now - Instant.parse(clock.group(1)).toEpochMilli()));
            if (now < due) return;
            due += SWEEP_MS;
            var reference = String.format("swept-%.3f-%d-%.3f", now / 1e3, compared, apart / 1e3);
            var body = String.format("""
                {"merchant_reference": "%s", "amount": "5.00", "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
                """, reference);
            var payout = request("/api/v1/payouts").header("X-IDEMPOTENCY-KEY", reference);
            psp.send(payout.POST(HttpRequest.BodyPublishers.ofString(body)).build(), BodyHandlers.ofString());
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    static String work() throws Exception {
        if (database.get() == null) database.set(DriverManager.getConnection(System.getenv("JDBC_URL")));
        try (var statement = database.get().createStatement()) {
            statement.setQueryTimeout(10);
            statement.execute("SELECT pg_sleep(0.02)");
        }
        var request = HttpRequest.newBuilder(URI.create(System.getenv("UPSTREAM"))).timeout(Duration.ofSeconds(10)).build();
        return upstream.send(request, BodyHandlers.ofString()).body();
    }

    static SSLContext trusting(String file) throws Exception {
        var trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (var input = new FileInputStream(file)) {
            trusted.setCertificateEntry("upstream", CertificateFactory.getInstance("X.509").generateCertificate(input));
        }
        var managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        var context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }

    static String answer(String path) throws Exception {
        return switch (path) {
            case "/clocks" -> System.currentTimeMillis() / 1e3 + " " + System.nanoTime() / 1e9;
            case "/work" -> work();
            default -> "";
        };
    }

    public static void main(String[] arguments) throws Exception {
        if (System.getenv("UPSTREAM_CA") != null) {
            upstream = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).sslContext(trusting(System.getenv("UPSTREAM_CA")))
                .version(HttpClient.Version.HTTP_1_1).build();
        }
        Executors.newScheduledThreadPool(1).scheduleAtFixedRate(Shop::sweep, 1, 1, TimeUnit.MINUTES);
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            exchange.getRequestBody().readAllBytes();
            String text;
            int status = 200;
            try {
                text = answer(exchange.getRequestURI().getPath());
            } catch (Exception error) {
                status = 500;
                text = error.toString();
            }
            exchange.sendResponseHeaders(status, text.isEmpty() ? -1 : text.getBytes().length);
            exchange.getResponseBody().write(text.getBytes());
            exchange.close();
        });
        server.start();
    }
}
