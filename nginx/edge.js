// The last check of an answer: the stamp of whoever gave it must be the version that was chosen. What is thrown here
// closes the connection before a byte of the answer is sent. Loaded by the edge's nginx; written by pinrail.
// Each call has a machine of its own and each look at a variable costs: the comparing is done by maps.

function strict(r) {
    const wrong = r.variables.pr_wrong;
    if (wrong) {
        throw new Error('the host answered for ' + wrong);
    }
}

function lenient(r) {
    const wrong = r.variables.pr_mistaken;
    if (wrong) {
        throw new Error('the host answered for ' + wrong);
    }
}

export default { strict, lenient };
