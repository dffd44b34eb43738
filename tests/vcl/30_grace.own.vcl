sub vcl_backend_response {
    set beresp.ttl = 0.001s;
    set beresp.grace = 1h;
}
