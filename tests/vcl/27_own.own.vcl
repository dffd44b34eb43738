// A file that stands alone too.
vcl 4.1;

import std;
import cookie;

acl office { "192.0.2.0"/24; }

sub own_refuse {
    return (synth(403, "Not from here"));
}

sub vcl_recv {
    if (req.url ~ "^/admin" && client.ip !~ office) {
        call own_refuse;
    }
    if (req.url == "/old") {
        return (synth(301, "/new"));
    }
    if (req.http.Cookie) {
        cookie.parse(req.http.Cookie);
        cookie.keep("session");
        set req.http.Cookie = cookie.get_string();
        if (req.http.Cookie == "") {
            unset req.http.Cookie;
        }
    }
    std.log("own sees " + req.http.x-pinrail-version);
}

sub vcl_hash {
    hash_data(req.http.Accept-Language);
}

sub vcl_backend_fetch {
    set bereq.http.X-Own = "yes";
}

sub vcl_backend_response {
    if (bereq.url == "/forever") {
        set beresp.ttl = 1h;
    }
    set beresp.http.X-Seen = beresp.http.x-deployment-id;
}

sub vcl_backend_error {
    set beresp.body = "the operator's page";
}

sub vcl_deliver {
    set resp.http.X-Own = "delivered";
    return (deliver);
}

sub vcl_synth {
    if (resp.status == 301) {
        set resp.http.Location = resp.reason;
    }
}
