// Read cases from standard input, one a line, and print `accepted` or `refused` for each. See test_docs_verifiers.py.
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

class Driver {
    public static void main(String[] arguments) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            List<byte[]> fields = Arrays.stream(line.split("\t", -1)).map(Base64.getDecoder()::decode).toList();
            Map<String, String> headers = new HashMap<>();
            for (int i = 3; i < fields.size(); i += 2) headers.put(text(fields.get(i)), text(fields.get(i + 1)));
            List<String> secrets = List.of(text(fields.get(0)).split(" "));
            long now = Long.parseLong(text(fields.get(1)));
            System.out.println(Webhooks.isValid(secrets, headers, fields.get(2), now) ? "accepted" : "refused");
        }
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }
}
