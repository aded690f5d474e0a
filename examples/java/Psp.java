// Psp.java: gives each test of JUnit 5 a merchant of its own in PSP Sandbox. Copy it next to your tests. It needs the JDK and JUnit.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** A merchant for one test, with a frozen clock: {@code @RegisterExtension final Psp psp = new Psp();} */
public final class Psp implements BeforeEachCallback, AfterEachCallback {
    /** Runs psp until this process ends, even if it is killed: that closes its end of the pipe. $0 is a folder for keys and the log. */
    private static final String WATCH = """
        unset DATABASE_URL REDIS_URL; exec 3<&0 > "$0/log" 2>&1
        psp up --ephemeral --no-seed --port 0 --ipn-port 0 --ready-file "$0/ready" < /dev/null & psp=$!
        { cat <&3; kill $psp; } & wait $psp; mv "$0/log" "$0/ended"; cat <&3; rm -rf "$0"
        """;
    private static final String NONE =
        "The sandbox did not start: put psp on the PATH (pipx install 'psp-sandbox[server]'), or set PSP_URL and PSP_ADMIN_KEY.\n";
    private static final Pattern TOKEN = Pattern.compile("\"((?:[^\"\\\\]|\\\\.)*)\"|[\\[\\]{}]|[^\\s\\[\\]{},:\"]+");
    private static final HttpClient CLIENT = HttpClient.newHttpClient();
    private static String sandboxUrl, adminKey;
    private static Process process; // keeps the pipe open: the garbage collector would close it

    /** An application: it gets the headers (names in lower case) and the raw body of each webhook, and returns a status. */
    public interface App { int receive(Map<String, String> headers, byte[] body); }

    /** What an application needs. */
    public String url, apiKey = "", webhookSecret;
    public volatile App app;
    private String merchantId;
    private HttpServer server;
    private final List<Map<String, Object>> events = new CopyOnWriteArrayList<>();
    private final List<String> invalid = new CopyOnWriteArrayList<>();

    /** Creates the merchant, with a balance of 1000000.00. */
    @Override public void beforeEach(ExtensionContext context) throws Exception {
        url = start();
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", this::receive);
        String body = """
            {"name": "%.90s", "opening_balance": "1000000.00", "frozen_at": "%s", "webhook_url": "http://127.0.0.1:%d/webhooks"}""";
        String name = context.getDisplayName().replaceAll("[\"\\\\]", "'");
        body = body.formatted(name, Instant.now(), server.getAddress().getPort());
        Map<String, Object> made = call("POST", "/sandbox/v1/merchants", body);
        merchantId = (String) made.get("merchant_id");
        apiKey = (String) made.get("api_key");
        webhookSecret = (String) made.get("webhook_secret");
        server.start();
    }

    /** Deletes the merchant. Fails a test that has passed if its books or its webhooks are not in order. */
    @Override public void afterEach(ExtensionContext context) {
        if (server == null) return;
        try {
            if (context.getExecutionException().isEmpty()) check();
            call("DELETE", "/sandbox/v1/merchants/" + merchantId, "");
        } finally {
            server.stop(0);
        }
    }

    /** Creates a payout that follows a scenario, such as "returned" or "account_closed", and returns it. */
    public Map<String, Object> pays(String scenario, String amount) {
        String key = scenario + "-" + UUID.randomUUID();
        String body = """
            {"merchant_reference": "%s", "amount": "%s", "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}""";
        return call("POST", "/api/v1/payouts", body.formatted(key, amount), "X-IDEMPOTENCY-KEY", key, "X-SANDBOX-SCENARIO", scenario);
    }

    /** Returns the merchant's available balance, such as "1000000.00". */
    public String available() { return (String) call("GET", "/api/v1/balance", "").get("available_balance"); }

    /** Moves the merchant's clock on, and returns when everything that fell due is done and its webhooks have arrived. */
    public void advance(Duration duration) {
        Map<String, Object> run = call("POST", "/sandbox/v1/clock/advance", "{\"seconds\": " + duration.toSeconds() + "}");
        Assertions.assertEquals("true", run.get("complete"), () -> "the clock stopped: " + run);
    }

    /** Returns the only webhook of this type about a payout, and fails with what arrived instead. */
    public Map<String, Object> expect(String type, Map<String, Object> payout) {
        call("POST", "/sandbox/v1/drain", ""); // what is due now is done then
        Map<Object, Map<String, Object>> found = new HashMap<>(); // an event arrives again after a lost answer, with the same id
        List<Object> arrived = new ArrayList<>();
        for (Map<String, Object> event : events) {
            if (!payout.get("id").equals(((Map<?, ?>) event.get("data")).get("id"))) continue;
            arrived.add(event.get("type"));
            if (type.equals(event.get("type"))) found.put(event.get("id"), event);
        }
        Assertions.assertEquals(1, found.size(), () -> "expected " + type + " once.\nArrived: " + arrived + ". Not counted: " + invalid
            + ".\nThe clock is frozen: what is due later needs advance.");
        return found.values().iterator().next();
    }

    /** Sends a request, and returns the answer; numbers, true, false and null in it are text. Fails unless it succeeds. */
    @SuppressWarnings("unchecked") public Map<String, Object> call(String method, String path, String body, String... headers) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + path)).timeout(Duration.ofMinutes(1))
            .header("Content-Type", "application/json").header("X-API-KEY", apiKey).header("X-ADMIN-KEY", adminKey);
        if (headers.length > 0) request.headers(headers);
        try {
            var answer = CLIENT.send(request.method(method, HttpRequest.BodyPublishers.ofString(body)).build(), BodyHandlers.ofString());
            if (answer.statusCode() >= 300) Assertions.fail(method + " " + path + ": " + answer.statusCode() + " " + answer.body());
            return answer.body().isEmpty() ? Map.of() : (Map<String, Object>) value(TOKEN.matcher(answer.body()));
        } catch (IOException | InterruptedException error) {
            return Assertions.fail("the sandbox at " + url + " does not answer: " + error);
        }
    }

    private void check() {
        for (Object one : (List<?>) call("GET", "/api/v1/webhook-deliveries?limit=100", "").get("data")) {
            Map<?, ?> delivery = (Map<?, ?>) one;
            boolean isGood = "SUCCEEDED".equals(delivery.get("status")) || "0".equals(delivery.get("attempt_count"));
            Assertions.assertTrue(isGood, () -> "a webhook was not accepted: " + delivery + " " + invalid);
        }
        Map<String, Object> audit = call("GET", "/sandbox/v1/audit", "");
        Assertions.assertEquals("true", audit.get("ok"), () -> "the audit of the ledger found errors: " + audit);
    }

    @SuppressWarnings("unchecked") private void receive(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readNBytes(1 << 20);
        Map<String, String> headers = new HashMap<>();
        exchange.getRequestHeaders().forEach((name, values) -> headers.put(name.toLowerCase(), values.get(0)));
        boolean isValid = isValid(headers, body);
        if (isValid) events.add((Map<String, Object>) value(TOKEN.matcher(new String(body, StandardCharsets.UTF_8))));
        else invalid.add("an invalid signature: " + headers.get("webhook-id"));
        App now = app;
        exchange.sendResponseHeaders(now != null ? now.receive(headers, body) : isValid ? 204 : 401, -1);
        exchange.close();
    }

    /** Verifies a webhook: https://www.standardwebhooks.com. */
    private boolean isValid(Map<String, String> headers, byte[] body) {
        String stamp = headers.getOrDefault("webhook-timestamp", "");
        if (!stamp.matches("[0-9]{1,12}") || Math.abs(Instant.now().getEpochSecond() - Long.parseLong(stamp)) > 300) return false;
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(Base64.getDecoder().decode(webhookSecret.substring("whsec_".length())), "HmacSHA256"));
            mac.update((headers.get("webhook-id") + "." + stamp + ".").getBytes(StandardCharsets.UTF_8));
            String expected = "v1," + Base64.getEncoder().encodeToString(mac.doFinal(body));
            return List.of(headers.getOrDefault("webhook-signature", "").split(" ")).contains(expected);
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Parses JSON: the JDK has no parser. Escapes in strings stay as they are. */
    private static Object value(Matcher next) {
        if (!next.find() || next.group().matches("[]}]")) return null;
        if (next.group().equals("[")) {
            List<Object> list = new ArrayList<>();
            for (Object one = value(next); one != null; one = value(next)) list.add(one);
            return list;
        }
        if (!next.group().equals("{")) return next.group(1) != null ? next.group(1) : next.group();
        Map<String, Object> map = new HashMap<>();
        for (Object name = value(next); name != null; name = value(next)) map.put((String) name, value(next));
        return map;
    }

    private static synchronized String start() throws IOException, InterruptedException {
        if (sandboxUrl != null) return sandboxUrl;
        adminKey = System.getenv().getOrDefault("PSP_ADMIN_KEY", "");
        if ((sandboxUrl = System.getenv("PSP_URL")) != null) return sandboxUrl;
        Path folder = Files.createTempDirectory("psp-");
        process = new ProcessBuilder("sh", "-c", WATCH, folder.toString()).start();
        for (int polls = 0; !Files.exists(folder.resolve("ready")); polls++) {
            if (Files.exists(folder.resolve("ended"))) Assertions.fail(NONE + Files.readString(folder.resolve("ended")));
            if (polls == 2_400) Assertions.fail(NONE + "It was not ready within two minutes.");
            Thread.sleep(50);
        }
        Map<?, ?> ready = (Map<?, ?>) value(TOKEN.matcher(Files.readString(folder.resolve("ready"))));
        adminKey = (String) ready.get("admin_key");
        return sandboxUrl = (String) ready.get("api_url");
    }
}
