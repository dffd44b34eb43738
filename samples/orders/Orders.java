import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Objects;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** A service on the JDK's own HTTP server. It is told where to listen and who it is, and ends what it began. */
public final class Orders {
    private static final String BUILD = Objects.requireNonNullElse(System.getenv("PINRAIL_VERSION"), "none");
    private static final String HOST = Objects.requireNonNullElse(System.getenv("PINRAIL_HOST"), "here");
    private static final int LAST_REQUESTS_SECONDS = 5;

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        ExecutorService workers = Executors.newFixedThreadPool(8);
        server.setExecutor(workers);
        server.createContext("/", Orders::answer);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> end(server, workers)));
        server.start();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        try (exchange) {
            int received = exchange.getRequestBody().readAllBytes().length;
            int status = switch (exchange.getRequestURI().getPath()) {
                case "/healthz", "/orders" -> 200;
                default -> 404;
            };
            String said = String.format(
                "{\"build\":\"%s\",\"host\":\"%s\",\"pid\":%d,\"bytes\":%d}",
                BUILD, HOST, ProcessHandle.current().pid(), received);
            byte[] body = said.getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(status, body.length);
            exchange.getResponseBody().write(body);
        }
    }

    /** On TERM: no new connections, and those that wait for an answer get it. */
    private static void end(HttpServer server, ExecutorService workers) {
        workers.shutdown();
        try {
            workers.awaitTermination(LAST_REQUESTS_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        server.stop(0);
    }
}
