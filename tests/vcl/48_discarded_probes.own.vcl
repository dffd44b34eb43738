# A host that is not probed, and so says nothing but what it is asked.
backend slow {
    .host = "${s3_addr}";
    .port = "${s3_port}";
}

sub vcl_backend_fetch {
    if (bereq.url == "/slow") {
        set bereq.backend = slow;
    }
}
