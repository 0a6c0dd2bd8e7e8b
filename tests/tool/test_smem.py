#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: test_smem.py SMEM [NAME...]

The smem command from outside, as TAP: what it prints, what it returns, what it leaves behind.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile

SMEM = sys.argv[1]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT = 110  # seconds; more than any of these needs anywhere


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def check(condition, what, *details):
    if not condition:
        raise Failed("\n".join([what] + [str(detail) for detail in details]))


def smem(*args, status=0, env=None):
    result = subprocess.run([SMEM] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True, timeout=LIMIT,
                            env=dict(os.environ, **(env or {})))
    check(result.returncode == status, "smem %s: status %d, wanted %d" % (" ".join(args), result.returncode, status),
          result.stdout, result.stderr)
    return result


@contextlib.contextmanager
def scratch(size=None, fill=b"\x5a\x01\x02"):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data")
        if size is not None:
            with open(path, "wb") as out:
                out.write((fill * (size // len(fill) + 1))[:size])
        yield path


@contextlib.contextmanager
def environment(more):
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def store(*args):
    """A stand-alone store, ended by SIGTERM; yields its process and URL."""
    process = subprocess.Popen([SMEM, "store", "--listen", "tcp://127.0.0.1:0"] + list(args), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    try:
        line = process.stdout.readline()
        check(line.startswith("listening on tcp://127.0.0.1:"), "the store does not listen", line)
        yield process, line.split()[-1]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=LIMIT)
    check(process.returncode == 0, "the store ended with %d" % process.returncode, errors)


def demo(*args, ranks, size):
    out = json.loads(smem("demo", "--json", "--ranks", str(ranks), *args).stdout)
    check(out["ok"] is True, "not ok", out)
    check(len(out["rank"]) == ranks and sum(r["bytes"] for r in out["rank"]) == size, "not all bytes", out)
    with_data = sum(r["bytes"] > 0 for r in out["rank"])
    for rank in out["rank"]:
        wanted = 1 if ranks == 1 else with_data - (rank["bytes"] > 0)
        check(rank["shares_copied_back"] == wanted == rank["shares_loaded_back"], "not all read back", out)
        check(rank["digests_wrong"] == 0, "digests", out)
    check(len({r["slot"] for r in out["rank"]}) == ranks, "slots are not different", out)
    return out


def test_demo_ranks():
    size = 5 * (1 << 20) + 12345
    with scratch(size, os.urandom(4099)) as path:
        for ranks in (1, 2, 3, 4):
            out = demo("--file", path, ranks=ranks, size=size)
            check(out["files"] == [os.path.realpath(path)], "files", out)


def test_demo_sizes():
    for size in (1, 5, 4096, 1 << 20, (1 << 20) + 1, (2 << 20) - 1):
        with scratch(size) as path:
            demo("--file", path, ranks=3, size=size)


def test_demo_default_data():
    out = json.loads(smem("demo", "--json", "--ranks", "2").stdout)
    check(out["ok"] is True and out["bytes"] >= 8 << 20, "the default data", out)


def test_demo_table():
    with scratch(3 << 20) as path:
        out = smem("demo", "--file", path, "--ranks", "2").stdout
    check("every SHA-256 matched" in out and "memcpy" in out and out.count(" ok") == 2, "table", out)
    check("\x1b" not in out, "colours in a file", out)


def test_demo_rounds():
    """More than fits at a time; the file is sparse, and 4 bytes tell the rounds apart."""
    size = (300 << 20) + 77
    with scratch() as path:
        with open(path, "wb") as out:
            out.truncate(size)
            for at in range(0, size - 4, 32 << 20):
                out.seek(at)
                out.write(b"%04d" % (at >> 20))
        out = demo_many(path, size)
    check(out["ok"] is True, "rounds", out)


def demo_many(path, size):
    out = json.loads(smem("demo", "--json", "--ranks", "2", "--file", path).stdout)
    check(sum(r["bytes"] for r in out["rank"]) == size, "not all bytes", out)
    check(all(r["shares_copied_back"] == 2 for r in out["rank"]), "two rounds", out)
    return out


def test_demo_bad_files():
    with scratch(0) as empty:
        check("empty" in smem("demo", "--file", empty, status=1).stderr, "empty file")
        check("No such file" in smem("demo", "--file", empty + "-not", status=1).stderr, "missing file")
        check("not a regular file" in smem("demo", "--file", os.path.dirname(empty), status=1).stderr, "folder")
    check("not a regular file" in smem("demo", "--file", "/dev/zero", status=1).stderr, "device")


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as text:
        return [int(word) for word in text.read().split()]


def ended(handles):
    """True when all of these processes (pidfds) have ended, at the latest when the time is up."""
    left = set(handles)
    while left:
        ready, _, _ = select.select(left, [], [], LIMIT)
        if not ready:
            return False
        left -= set(ready)
    return True


def ranks_of(process, count):
    """Descriptors of a demo's ranks, as soon as they are all there."""
    ranks = []
    while len(ranks) < count and process.poll() is None:
        ranks = children(process.pid)
    check(len(ranks) == count, "%d ranks" % count, ranks)
    return [os.pidfd_open(pid) for pid in ranks]


def test_demo_rank_dies():
    """A rank is killed as soon as it runs: the demo tells, fails, and leaves nobody behind."""
    with scratch(64 << 20) as path, store() as (_, url):
        process = subprocess.Popen([SMEM, "demo", "--file", path, "--ranks", "4", "--store", url], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, universal_newlines=True)
        ranks = ranks_of(process, 4)
        signal.pidfd_send_signal(ranks[2], signal.SIGKILL)
        _, errors = process.communicate(timeout=LIMIT)
        check(process.returncode == 1, "status %d" % process.returncode, errors)
        check("killed by signal 9" in errors or "PEER_LOST" in errors, "what it says", errors)
        check(ended(ranks), "processes left")
        for rank in ranks:
            os.close(rank)


def test_demo_parent_dies():
    with scratch(64 << 20) as path, store() as (_, url):
        process = subprocess.Popen([SMEM, "demo", "--file", path, "--ranks", "3", "--store", url], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ranks = ranks_of(process, 3)
        process.kill()
        process.wait(timeout=LIMIT)
        check(ended(ranks), "processes left")
        for rank in ranks:
            os.close(rank)


def test_store():
    with tempfile.TemporaryDirectory() as folder, scratch(1 << 20) as path:
        port_file = os.path.join(folder, "port")
        with store("--port-file", port_file) as (_, url):
            with open(port_file, encoding="ascii") as text:
                check(url.endswith(":" + text.read().strip()), "the port file", url)
            check(os.listdir(folder) == ["port"], "left beside the port file", os.listdir(folder))
            # one after the other: what the first left must not disturb the second
            for ranks in (2, 3, 2):
                demo("--file", path, "--store", url, ranks=ranks, size=1 << 20)
            check("in use" in smem("store", "--listen", url, status=1).stderr.lower().replace("_", " "), "a taken port")
        check(os.listdir(folder) == [], "the port file stays", os.listdir(folder))


def test_store_signals():
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        with store() as (process, _):
            process.send_signal(number)
            check(process.wait(timeout=LIMIT) == 0, "signal %d" % number)


def test_usage():
    for args in ((), ("nonsense",), ("demo", "--ranks", "0"), ("demo", "--ranks", "x"), ("demo", "--nonsense"),
                 ("demo", "word"), ("store",), ("store", "--listen", "tcp://1.2.3.4"),
                 ("store", "--listen", "tcp://127.0.0.1:0", "--log-level", "4"), ("perf",), ("perf", "nothing"),
                 ("perf", "bm", "--rotate", "much"), ("perf", "--hosts", "bm"), ("perf", "--hosts", "--mtu", "100"),
                 ("perf", "--hosts", "--mtu", "9k"), ("perf", "--mtu", "1500"), ("perf", "bm", "--rank", "0"),
                 ("perf", "--hosts", "--rank", "0"), ("perf", "--hosts", "--store", "tcp://127.0.0.1:1"),
                 ("perf", "--hosts", "--store", "tcp://127.0.0.1:1", "--rank", "2"),
                 ("perf", "--hosts", "--store", "tcp://127.0.0.1:1", "--rank", "0", "--mtu", "1500"),
                 ("perf", "--hosts", "--ranks", "513"), ("info", "--rank", "1"), ("info", "--timeout", "3"),
                 ("info", "--store", "tcp://127.0.0.1:1", "--timeout", "0"),
                 ("info", "--store", "tcp://127.0.0.1:1", "--rank", "1", "--ranks", "1"), ("help", "nonsense")):
        result = smem(*args, status=2)
        check(result.stderr and not result.stdout, "smem %s says nothing" % " ".join(args), result)
    check("did you mean 'demo'" in smem("demonstrate", status=2).stderr, "a guess")


def test_help():
    for args in (("--help",), ("help",), ("demo", "--help"), ("store", "--help"), ("perf", "--help"),
                 ("info", "--help"), ("help", "demo")):
        result = smem(*args)
        check("Usage: smem" in result.stdout and not result.stderr, "smem " + " ".join(args), result)
    check(smem("--version").stdout.startswith("smem 1."), "version")


def test_info():
    out = json.loads(smem("info", "--json", env={"SMEM_COPY_THREADS": "0"}).stdout)
    settings = {row["name"]: row for row in out["settings"]}
    check(settings["SMEM_COPY_THREADS"]["set"] and settings["SMEM_COPY_THREADS"]["value"] == "0", "settings", settings)
    check(any(row["name"] == "WORLD_MAX" and row["value"] == 1024 for row in out["limits"]), "limits", out["limits"])
    check(out["pages"]["pool"] != "unknown", "pages", out["pages"])
    check([peer["path"] for peer in out["paths"]["peers"]] == ["direct"], "the path between two processes", out["paths"])
    text = smem("info", env={"SMEM_CONF_STORE_TLS_ENABLE": "0", "SMEM_CONF_STORE_TLS_INFO": "tlsPkPwd: secret"}).stdout
    check("SMEM_HUGE_PAGES" in text and "secret" not in text, "text", text)


@contextlib.contextmanager
def started(*commands):
    """Processes of the command that run meanwhile; they must have ended, or are killed."""
    processes = [subprocess.Popen([SMEM] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, universal_newlines=True) for args in commands]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=LIMIT)


def fabric(*args, status=0, env=None):
    return json.loads(smem("info", "--json", "--store", *args, status=status, env=env).stdout)["fabric"]


def check_matrix(found, ranks, pids):
    """One symmetric object of so many ranks of this host, every pair direct."""
    check(len(found["hosts"]) == 1 and found["silent"] == found["cannot_say"] == 0, "hosts", found)
    check([o["kind"] for o in found["objects"]] == ["shm"], "objects", found)
    members = found["objects"][0]["members"]
    check([m["rank"] for m in members] == list(range(ranks)), "members", found)
    check({m["pid"] for m in members} == pids, "processes", found, pids)
    check(all(m["state"] == "answered" for m in members), "answers", found)
    pairs = {(p["from"], p["to"]): p for p in found["objects"][0]["paths"]}
    check(set(pairs) == {(a, b) for a in range(ranks) for b in range(ranks) if a != b}, "pairs", found)
    for pair in pairs.values():
        check(pair["path"] == "direct" and pair["mapped"] and pair["state"] == "up" and
              pair["why_no_better"] == [], "a pair", pair)


def test_info_matrix():
    """Processes that meet for it: each shows all."""
    with store() as (_, url):
        for ranks in (1, 2, 4):
            commands = [("info", "--json", "--store", url, "--ranks", str(ranks), "--rank", str(rank))
                        for rank in range(ranks)]
            with started(*commands) as processes:
                outs = [process.communicate(timeout=LIMIT) for process in processes]
                check(all(p.returncode == 0 for p in processes), "status", outs)
                for out, _ in outs:
                    check_matrix(json.loads(out)["fabric"], ranks, {p.pid for p in processes})
        found = fabric(url)
        check(found["objects"] == [] and found["processes"] == found["without_objects"] == 1, "something stays", found)


def test_info_matrix_text():
    with store() as (_, url):
        command = ("info", "--store", url, "--ranks", "2", "--rank")
        with started(command + ("1",)) as (other,):
            text = smem(*command, "0").stdout
            check(other.communicate(timeout=LIMIT)[0] == text, "the other one says something else", text)
    check("SHM object 63: 2 of 2 ranks" in text and "from\\to" in text and "why no better" not in text, "text", text)
    rows = [line.split() for line in text.splitlines()]
    check(["0", ".", "direct"] in rows and ["1", "direct", "."] in rows, "matrix", text)


def test_info_nothing():
    with store() as (_, url):
        out = smem("info", "--store", url)
        check(out.stdout.count("\n") == 1 and "nothing runs there" in out.stdout and url in out.stdout, "text", out)
        check(not out.stderr, "errors", out)
        found = fabric(url)
        check(found["objects"] == [] and found["hosts"] == [] and found["store"] == url, "json", found)


def test_info_unreachable():
    with store() as (_, url):
        pass
    out = smem("info", "--store", url, "--timeout", "1", status=1)
    check(not out.stdout and url in out.stderr and "refused" in out.stderr, "what it says", out)
    out = smem("info", "--store", url, "--timeout", "1", "--json", status=1)
    check(url in json.loads(out.stdout)["error"], "json", out)
    check("URL" in smem("info", "--store", "nonsense", status=1).stderr, "no URL")


def until(condition, what):
    """Ask again until it is so; each time asks a store, so nothing spins."""
    for _ in range(1000):
        found = condition()
        if found:
            return found
    raise Failed(what)


def test_info_waiting_and_stopped():
    """Who waits for others is there already; who is stopped does not keep anybody from an answer."""
    with store() as (_, url):
        with started(("info", "--store", url, "--ranks", "2", "--rank", "0")) as (one,):
            found = until(lambda: [f for f in [fabric(url)] if f["objects"]], "rank 0 does not come")[0]
            check([m["pid"] for m in found["objects"][0]["members"]] == [one.pid], "the member", found)
            check(found["objects"][0]["members"][0]["joined"] is False, "joined", found)
            check("process %d, has not joined" % one.pid in smem("info", "--store", url).stdout, "text")
            one.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, one.pid, os.WSTOPPED | os.WNOWAIT)
            found = fabric(url, "--timeout", "1", status=1)
            check(found["silent"] == 1 and len(found["strangers"]) == 1, "silent", found)
            out = smem("info", "--store", url, "--timeout", "1", status=1).stdout
            check("the process at %s did not answer within 1 s" % found["strangers"][0] in out, "text", out)
            one.send_signal(signal.SIGCONT)


def test_info_at_once():
    with store() as (_, url):
        with started(*[("info", "--json", "--store", url)] * 6) as processes:
            for process in processes:
                out, errors = process.communicate(timeout=LIMIT)
                check(process.returncode == 0 and json.loads(out)["fabric"]["objects"] == [], "at once", out, errors)


def test_info_tls():
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["sh", os.path.join(ROOT, "scripts", "make-test-ca.sh"), folder], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, universal_newlines=True, check=False)
        check(made.returncode == 0, "certificates", made.stderr)
        tls = {"SMEM_CONF_STORE_TLS_ENABLE": "1", "SMEM_CONF_STORE_TLS_INFO":
               "tlsCaPath: {0}; tlsCaFile: ca.pem; tlsCert: {0}/node.pem; tlsPk: {0}/node.key;".format(folder)}
        with environment(tls):
            with store() as (_, url):
                check("nothing runs there" in smem("info", "--store", url).stdout, "over TLS")
                plain = dict.fromkeys(tls, "")
                plain["SMEM_CONF_STORE_TLS_ENABLE"] = "0"
                out = smem("info", "--store", url, "--timeout", "1", status=1, env=plain)
                check(not out.stdout and url in out.stderr, "without", out)


def test_perf_bm():
    out = json.loads(smem("perf", "bm", "--quick", "--rotate", "16M", "--ranks", "3", "--json").stdout)
    shapes = {row["shape"] for row in out["rows"] if "shape" in row}
    check(out["ok"] is True and {"64 B", "4 KiB", "1 MiB"} <= shapes, "shapes", shapes)
    check(any("3 ranks" in row.get("what", "") for row in out["rows"]), "joins", out)


def test_perf_store():
    out = json.loads(smem("perf", "store", "--quick", "--json").stdout)
    check(out["ok"] is True and [row["shape"] for row in out["rows"] if "shape" in row] == ["a rank", "a session"], "rows", out)


HOSTS_SHAPES = ["4 KiB", "64 KiB", "1 MiB", "16 MiB", "64 MiB", "8.99 MB, one write", "61 x 128 + 61 x 16 KiB"]
HOSTS_QUICK = ("perf", "--hosts", "--quick", "--rotate", "64M")


def check_hosts(out):
    """Everything is there that the JSON of `smem perf --hosts` promises, whatever the figures are."""
    rows = out["rows"]
    check(out["ok"] is True and out["topic"] == "hosts", "not ok", out)
    shapes = [row for row in rows if "shape" in row]
    check([row["shape"] for row in shapes][:7] == HOSTS_SHAPES and len(shapes) == 11, "shapes", shapes)
    for row in shapes:
        names = [case["name"] for case in row["cases"]]
        check(names[:2] == ["smem", "raw libfabric"] and len(names) == (3 if "x" not in row["shape"] and row["bytes"] > 1 << 19 else 2),
              "cases", row)
        check(row["ratio"] > 0 and row["best_ratio"] > 0 and row["cpu_ratio"] > 0 and row["bytes"] > 0, "row", row)
        for case in row["cases"]:
            check(case["p99_s"] >= case["best_s"] > 0 and case["median_s"] > 0 and case["gb_per_s"] > 0, "times", row)
            check(case["cpu_writer_s_per_gb"] > 0 and case["cpu_target_s_per_gb"] >= 0, "CPU", row)
    notes = " ".join(row["note"] for row in rows if "note" in row)
    rivals = [row for row in rows if "rival" in row]
    check(all(row["gb_per_s"] > 0 for row in rivals), "rivals", rivals)
    for name, program in (("iperf3", "iperf3"), ("UCX", "ucx_perftest")):
        check(any(name in row["rival"] for row in rivals) or program in notes or name in notes, name, rivals, notes)
    check(len([row for row in rows if "x 2 ranks" in row.get("what", "")]) == 3, "collectives", rows)
    aims = [row for row in rows if "aim" in row]
    check(len(aims) == 14, "aims", aims)
    for row in aims:
        check(row["verdict"] in ("met", "missed", "not measured") and row["limit"] > 0, "aim", row)
        check((row["value"] is None) == (row["verdict"] == "not measured"), "aim", row)
    return next(row["link"] for row in rows if "link" in row)


def need_namespaces():
    if os.geteuid() != 0:
        raise Skipped("network namespaces need root")
    probe = "unshare --net --pid --fork sh -c 'ip link add v0 type veth peer name v1'"
    if subprocess.call(["sh", "-c", probe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
        raise Skipped("no network namespaces or no veth here (or iproute2 is missing)")


def test_perf_hosts():
    need_namespaces()
    link = check_hosts(json.loads(smem(*HOSTS_QUICK, "--mtu", "9000", "--json").stdout))
    check(link["mtu"] == 9000 and link["interface"] == "eth0" and link["writer"] != link["target"], "link", link)


def test_perf_hosts_text():
    """Without rivals: their programs are looked for in $PATH."""
    need_namespaces()
    with tempfile.TemporaryDirectory() as folder:
        out = smem(*HOSTS_QUICK, env={"PATH": folder}).stdout
    for words in HOSTS_SHAPES + ["iperf3 is not installed", "ucx_perftest is not installed", "MTU 1500", "Aims",
                                 "not measured", "idle CPU"]:
        check(words in out, "no '%s'" % words, out)


def test_perf_hosts_two():
    """As between two machines: each side by itself, with a store that is there already, or none. No root."""
    with store() as (_, url):
        target = subprocess.Popen([SMEM, *HOSTS_QUICK, "--store", url, "--rank", "0"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        out = json.loads(smem(*HOSTS_QUICK, "--store", url, "--rank", "1", "--json").stdout)
        told, errors = target.communicate(timeout=LIMIT)
        check(target.returncode == 0 and "rank 1" in told, "the target", target.returncode, told, errors)
    check(any("on one host" in row.get("note", "") for row in out["rows"]), "nobody noticed that this is one host", out)
    check_hosts(out)


def descendants(pid):
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in children(pid):
            found += [child] + descendants(child)
    return found


def interfaces():
    return sorted(os.listdir("/sys/class/net"))


def test_perf_hosts_killed():
    """At any moment, by any signal: no process, no interface and no named namespace stays."""
    need_namespaces()
    before = interfaces()
    named = os.listdir("/run/netns") if os.path.isdir("/run/netns") else None
    for number, processes in ((signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGKILL, 3), (signal.SIGINT, 2),
                              (signal.SIGTERM, 2)):
        process = subprocess.Popen([SMEM, *HOSTS_QUICK], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        handles = {}
        while len(handles) < processes and process.poll() is None:
            for pid in descendants(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    handles.setdefault(pid, os.pidfd_open(pid))
        check(process.poll() is None, "it ended by itself", process.returncode)
        process.send_signal(number)
        check(process.wait(timeout=LIMIT) == -number, "status %d" % process.returncode)
        check(ended(handles.values()), "processes left", handles)
        for handle in handles.values():
            os.close(handle)
    check(interfaces() == before, "interfaces left", before, interfaces())
    check((os.listdir("/run/netns") if os.path.isdir("/run/netns") else None) == named, "named namespaces")


def test_perf_hosts_rank_dies():
    """Either side is killed, at once or in the midst of it: the command fails and says why."""
    need_namespaces()
    for victim, late in ((0, False), (1, False), (0, True), (1, True)):
        process = subprocess.Popen([SMEM, *HOSTS_QUICK], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, universal_newlines=True)
        pids = []
        while process.poll() is None and (len(pids) < 2 or (late and not children(pids[1]))):
            pids = children(process.pid)[:2]
        check(len(pids) == 2, "the ranks", process.returncode, pids)
        ranks = [os.pidfd_open(pid) for pid in pids]
        signal.pidfd_send_signal(ranks[victim], signal.SIGKILL)
        _, errors = process.communicate(timeout=LIMIT)
        check(process.returncode == 1 and errors, "status %d, victim %d, late %d" % (process.returncode, victim, late),
              errors)
        check(ended(ranks), "processes left")
        for rank in ranks:
            os.close(rank)


def test_perf_hosts_refused():
    """Not root: what to do instead. A store that nobody can host: why."""
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid", "65534", "--clear-groups", SMEM]
        result = subprocess.run(command + ["perf", "--hosts"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True, timeout=LIMIT)
        if "setpriv" in result.stderr or "Permission denied" in result.stderr:
            raise Skipped("no other user can run the command here: " + result.stderr.strip())
        check(result.returncode == 1 and "root" in result.stderr and "--rank 1" in result.stderr, "refusal", result)
    else:
        check("--rank 1" in smem("perf", "--hosts", status=1).stderr, "refusal")
    check("no route" in smem("perf", "--hosts", "--store", "nothing", "--rank", "1", status=1).stderr, "a bad URL")


def main():
    tests = [(name[5:], test) for name, test in globals().items() if name.startswith("test_")]
    if sys.argv[2:]:
        tests = [pair for pair in tests if pair[0] in sys.argv[2:]]
    bad = 0
    print("1..%d" % len(tests))
    for number, (name, test) in enumerate(tests, 1):
        why = skip = None
        try:
            test()
        except Skipped as reason:
            skip = str(reason)
        except (Failed, subprocess.TimeoutExpired, ValueError, KeyError, OSError) as error:
            why = "%s: %s" % (type(error).__name__, error)
        bad += why is not None
        print("%sok %d - %s%s" % ("not " if why else "", number, name, " # SKIP " + skip if skip else ""))
        for line in (why or "").splitlines():
            print("# " + line)
        sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
