# Makes of the runs of the failover matrix (cell, round, result, seconds, name=value ...) a table
# for README, one row for each fault, and says what was not as promised: runs that failed, and
# times that are longer at the median of the rounds, or in one of them, than the cell allows
# (NAME_median_max, NAME_worst_max). Ends with 1 in that case.
BEGIN { FS = "\t" }

{
    runs[$1]++
    if ($3 != "ok") { failed[$1]++ }
    split("", run)
    for (at = 5; at <= NF; at++) {
        equals = index($at, "=")
        run[substr($at, 1, equals - 1)] = substr($at, equals + 1)
    }
    # Cells without a load have no figures.
    if (!("fault" in run)) { next }
    fault = run["fault"]
    if (!(fault in rounds)) {
        # In the order of the cells' names, however they ran.
        for (at = ++count; at > 1 && cell_of[faults[at - 1]] > $1; at--) {
            faults[at] = faults[at - 1]
        }
        faults[at] = fault
        cell_of[fault] = $1
    }
    rounds[fault]++
    for (name in run) {
        value[fault, name, rounds[fault]] = run[name]
        sum[fault, name] += run[name]
        if (run[name] + 0 > most[fault, name] + 0) { most[fault, name] = run[name] }
        if (name ~ /_(median|worst)_max$/) { bound[fault, name] = run[name] }
    }
}

# The value in the middle of all rounds (of two, the larger), empty without any.
function median(fault, name,    all, n, round, at) {
    n = 0
    for (round = 1; round <= rounds[fault]; round++) {
        if (!((fault, name, round) in value)) { continue }
        for (at = ++n; at > 1 && all[at - 1] > value[fault, name, round] + 0; at--) {
            all[at] = all[at - 1]
        }
        all[at] = value[fault, name, round] + 0
    }
    return n == 0 ? "" : all[int(n / 2) + 1]
}

function times(fault, name) {
    if (median(fault, name) == "") { return "–" }
    return sprintf("%.2f, %.2f s", median(fault, name), most[fault, name])
}

function errors(fault,    words) {
    words = ""
    if (sum[fault, "uncertain"] > 0) {
        words = sprintf("%d `UNCERTAIN` (%d per client)", sum[fault, "uncertain"],
                        most[fault, "uncertain_each"])
    }
    if (sum[fault, "refused"] > 0) {
        words = words (words == "" ? "" : ", ") sum[fault, "refused"] " `MASTERDOWN`"
    }
    return words == "" ? 0 : words
}

function broken(what) {
    print "NOT AS PROMISED: " what
    ends = 1
}

END {
    print "| fault | rounds | acknowledged | lost | twice | write errors | read errors |" \
        " stall: median, worst | first acknowledgement after the news: median, worst |"
    print "|---|---|---|---|---|---|---|---|---|"
    for (at = 1; at <= count; at++) {
        fault = faults[at]
        printf "| %s | %d | %d | %d | %d | %s | %d | %s | %s |\n", fault, rounds[fault],
            sum[fault, "acknowledged"], sum[fault, "lost"], sum[fault, "twice"], errors(fault),
            sum[fault, "read_errors"], times(fault, "stall"), times(fault, "ack")
    }
    print ""
    for (cell in runs) {
        if (failed[cell] > 0) { broken(failed[cell] " of " runs[cell] " runs failed: " cell) }
    }
    for (each in bound) {
        split(each, key, SUBSEP)
        name = key[2]
        is_median = sub(/_median_max$/, "", name)
        sub(/_worst_max$/, "", name)
        found = is_median ? median(key[1], name) : most[key[1], name]
        if (found + 0 > bound[each] + 0) {
            broken(sprintf("%s: %s %.3f s %s, promised %.3f s", key[1], name, found,
                           is_median ? "at the median" : "at worst", bound[each]))
        }
    }
    if (!ends) { print "everything as promised" }
    exit ends
}
