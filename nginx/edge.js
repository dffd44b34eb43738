// The last check of an answer: the stamp of whoever gave it must be the version that was chosen. What is thrown here
// closes the connection before a byte of the answer is sent. Loaded by the edge's nginx; written by pinrail.

function strict(r) {
    const stamp = r.variables.upstream_http_x_served_version;
    if (r.variables.upstream_cache_status === 'HIT') {
        return; // attested when it was stored, and the same under every version
    }
    if (r.variables.pr_fetch && r.variables.upstream_status && stamp !== r.variables.pr_fetch) {
        throw new Error('the host answered for ' + (stamp || 'no version') + ', not ' + r.variables.pr_fetch);
    }
}

function lenient(r) {
    if (r.variables.upstream_http_x_served_version) {
        strict(r);
    }
}

export default { strict, lenient };
