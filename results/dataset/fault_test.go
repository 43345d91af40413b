package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/schema"
)

// The test binary is its own victim: with childEnv set it commits a run to
// that folder and ends, by the ways that the other variables name.
const (
	childEnv   = "DATASET_TEST_ROOT"
	strikeEnv  = "DATASET_TEST_STRIKE"  // kill the process at this hook call, counted from 1
	limitEnv   = "DATASET_TEST_FSIZE"   // largest file in bytes
	tmpfsEnv   = "DATASET_TEST_TMPFS"   // mount a tmpfs of this size at the folder first
	readOnly   = "DATASET_TEST_RDONLY"  // remount it read-only before the commit
	compactEnv = "DATASET_TEST_COMPACT" // compact the folder instead; "replace": where folders cannot be exchanged
	crossDev   = "DATASET_TEST_XDEV"    // mount another filesystem where samples go
	childError = "commit failed: "
)

func TestMain(m *testing.M) {
	if root := os.Getenv(childEnv); root != "" {
		if err := child(root); err != nil {
			fmt.Println(childError + err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(root string) error {
	calls, strike := 0, -1
	if s := os.Getenv(strikeEnv); s != "" {
		strike, _ = strconv.Atoi(s)
	}
	d, err := Open(root, Config{Hook: func(point string) {
		fmt.Println(point)
		if calls++; calls == strike {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	if how := os.Getenv(compactEnv); how != "" {
		if how == "replace" {
			d.cfg.swap = cannotSwap
		}
		_, err := d.Compact(context.Background(), CompactConfig{})
		return err
	}
	if size := os.Getenv(tmpfsEnv); size != "" {
		return onTmpfs(d, size)
	}
	if s := os.Getenv(limitEnv); s != "" {
		n, _ := strconv.ParseUint(s, 10, 64)
		signal.Ignore(syscall.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	return childCommit(d)
}

// childCommit commits a small run; the rows are the same in every process.
func childCommit(d *Dataset) error {
	tx := d.Begin(testRun, created)
	var samples []schema.SampleRow
	for i := range 30 {
		samples = append(samples, sample("a", i))
	}
	err := errors.Join(
		Add(tx, schema.RunRow{Common: common(), Status: "succeeded"}),
		Add(tx, samples...),
		tx.Attach("plan.json", []byte("{}\n")),
	)
	if err == nil {
		_, err = tx.Commit(context.Background())
	}
	return errors.Join(err, tx.Abort())
}

// onTmpfs commits to a real small filesystem and checks that a failure leaves
// nothing there. It runs in a mount namespace of its own.
func onTmpfs(d *Dataset, size string) error {
	if err := unix.Mount("tmpfs", d.Root(), "tmpfs", 0, "size="+size); err != nil {
		return err
	}
	if os.Getenv(readOnly) != "" {
		if err := unix.Mount("", d.Root(), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if os.Getenv(crossDev) != "" {
		samples := filepath.Join(d.Root(), schema.Samples)
		if err := errors.Join(os.Mkdir(samples, 0o755), unix.Mount("tmpfs", samples, "tmpfs", 0, "size=1m")); err != nil {
			return err
		}
	}
	commitErr := childCommit(d)
	if commitErr == nil {
		return nil
	}
	rep, err := d.Verify(context.Background(), false)
	if err != nil || !rep.OK() || rep.Runs != 0 {
		return fmt.Errorf("VISIBLE: after %w: %+v, %v", commitErr, rep, err)
	}
	return commitErr
}

func runChild(t *testing.T, root string, attr *syscall.SysProcAttr, env ...string) (output string, err error) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+root)...)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// visible reads every file that a globbing reader would see and fails when one
// is not whole.
func visible(t *testing.T, d *Dataset) (n int) {
	t.Helper()
	for _, path := range tree(t, d.Root()) {
		if !strings.HasSuffix(path, partSuffix) {
			continue
		}
		n++
		b, err := os.ReadFile(filepath.Join(d.Root(), path))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(path, "samples/") {
			err = readAll[schema.SampleRow](b)
		} else {
			err = readAll[schema.RunRow](b)
		}
		if err != nil {
			t.Errorf("a reader sees %s, which is not whole: %v", path, err)
		}
	}
	return n
}

func readAll[T schema.Row](b []byte) error {
	r, err := schema.NewReader[T](bytes.NewReader(b))
	for err == nil {
		_, err = r.Next()
	}
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// wantWhole is the tree of a committed child run and nothing else.
func wantWhole(t *testing.T, d *Dataset, when string) {
	t.Helper()
	part := "/part-" + testRun + "-0.parquet"
	want := []string{
		"_runs/" + testRun + "/manifest.json", "_runs/" + testRun + "/plan.json",
		"runs/v1/_schema.json", "runs/v1/date=2026-11-22" + part,
		"samples/v1/_schema.json", "samples/v1/date=2026-11-22/suite=a" + part,
	}
	if got := tree(t, d.Root()); !slices.Equal(got, want) {
		t.Errorf("%s: files are\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	rep := mustVerify(t, d, false)
	if !rep.OK() || rep.Runs != 1 || rep.Rows != 31 {
		t.Errorf("%s: verify = %+v", when, rep)
	}
}

// TestKilledAtEveryStep kills a committing process at every durable step. What
// a reader sees is whole at all times, and both ways back lead to exactly one
// result: committing again, and repair followed by committing again.
func TestKilledAtEveryStep(t *testing.T) {
	root := t.TempDir()
	trace, err := runChild(t, root, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, trace)
	}
	points := strings.Fields(trace)
	wantWhole(t, open(t, root, Config{}), "undisturbed")
	for _, what := range []string{"stage-fsync", "attachment-fsync", "intent-write", "intent-fsync", "intent-rename", "intent-dirsync", "schema-rename", "data-rename", "data-dirsync", "attachment-rename", "manifest-fsync", "manifest-rename", "manifest-dirsync"} {
		for _, when := range []string{"before", "after"} {
			if p := "dataset:" + what + ":" + when; !slices.Contains(points, p) {
				t.Errorf("no hook at %s", p)
			}
		}
	}
	manifest := slices.Index(points, "dataset:manifest-rename:after")
	for i, point := range points {
		for _, repair := range []bool{false, true} {
			// Both ways back from every step of the manifest, one from the rest.
			if !strings.Contains(point, "manifest") && repair == (i%2 == 0) {
				continue
			}
			t.Run(fmt.Sprintf("%d_%s_repair=%t", i+1, strings.ReplaceAll(point, ":", "_"), repair), func(t *testing.T) {
				t.Parallel()
				killAndResume(t, i+1, i >= manifest, repair)
			})
		}
	}
}

// killAndResume kills a child at one hook call and then takes the run up again.
func killAndResume(t *testing.T, strike int, committed, repair bool) {
	d := open(t, t.TempDir(), Config{})
	out, err := runChild(t, d.Root(), nil, fmt.Sprintf("%s=%d", strikeEnv, strike))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	visible(t, d)
	if list, err := d.List(context.Background()); err != nil || len(list) == 1 != committed {
		t.Errorf("list = %v, %v; want committed=%t", list, err, committed)
	}
	if repair {
		if rep := mustVerify(t, d, true); !rep.OK() {
			t.Errorf("repair left %v", rep.Problems)
		}
		if again := mustVerify(t, d, true); len(again.Problems) != 0 {
			t.Errorf("a second repair found %v", again.Problems)
		}
		if n := visible(t, d); n != 0 && n != 2 {
			t.Errorf("repair left %d of 2 files", n)
		}
	}
	if err := childCommit(d); err != nil {
		t.Fatalf("committing again: %v", err)
	}
	wantWhole(t, d, "in the end")
}

// TestFileLimit makes every write beyond some size fail, at many sizes.
func TestFileLimit(t *testing.T) {
	failed := 0
	for _, limit := range []int{0, 1, 3, 100, 1000, 3000, 5000, 8000, 9000, 10000, 12000, 1 << 20} {
		root := t.TempDir()
		out, err := runChild(t, root, nil, fmt.Sprintf("%s=%d", limitEnv, limit))
		d := open(t, root, Config{})
		if err == nil {
			wantWhole(t, d, fmt.Sprint("limit ", limit))
			continue
		}
		failed++
		if !strings.Contains(out, childError) || !strings.Contains(out, "file too large") {
			t.Errorf("limit %d: %v\n%s", limit, err, out)
		}
		if n := visible(t, d); n != 0 {
			t.Errorf("limit %d: %d files are visible", limit, n)
		}
		if rep := mustVerify(t, d, false); !rep.OK() || rep.Runs != 0 {
			t.Errorf("limit %d: verify = %+v", limit, rep)
		}
		if err := childCommit(d); err != nil {
			t.Errorf("limit %d: committing again: %v", limit, err)
		}
		wantWhole(t, d, fmt.Sprint("after limit ", limit))
	}
	if failed < 8 {
		t.Errorf("only %d limits made the commit fail", failed)
	}
}

// TestSmallFilesystem commits to tmpfs filesystems that are too small, and to
// one that is read-only.
func TestSmallFilesystem(t *testing.T) {
	attr := func() *syscall.SysProcAttr {
		return &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	if out, err := runChild(t, t.TempDir(), attr(), tmpfsEnv+"=16m"); err != nil {
		t.Skipf("this system allows no mounts in a user namespace: %v\n%s", err, out)
	}
	full := 0
	for _, kib := range []int{4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64} {
		out, err := runChild(t, t.TempDir(), attr(), fmt.Sprintf("%s=%dk", tmpfsEnv, kib))
		switch {
		case err == nil:
		case strings.Contains(out, "VISIBLE"):
			t.Errorf("%d KiB: %s", kib, out)
		case strings.Contains(out, "no space left on device"):
			full++
		default:
			t.Errorf("%d KiB: %v\n%s", kib, err, out)
		}
	}
	if full < 5 {
		t.Errorf("only %d sizes were too small", full)
	}
	out, err := runChild(t, t.TempDir(), attr(), tmpfsEnv+"=16m", readOnly+"=1")
	if err == nil || !strings.Contains(out, "read-only file system") || strings.Contains(out, "VISIBLE") {
		t.Errorf("read-only: %v\n%s", err, out)
	}
	out, err = runChild(t, t.TempDir(), attr(), tmpfsEnv+"=16m", crossDev+"=1")
	if err == nil || !strings.Contains(out, "cross-device link") || strings.Contains(out, "VISIBLE") {
		t.Errorf("across devices: %v\n%s", err, out)
	}
}

// TestFailureInTheMiddle makes publishing fail after the first file is visible.
func TestFailureInTheMiddle(t *testing.T) {
	d := open(t, t.TempDir(), Config{})
	block := filepath.Join(d.Root(), schema.Samples)
	if err := os.WriteFile(block, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := childCommit(d); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Fatalf("commit over a file: %v", err)
	}
	if n := visible(t, d); n != 0 {
		t.Errorf("%d files are visible after a failed commit", n)
	}
	if rep := mustVerify(t, d, false); !rep.OK() {
		t.Errorf("verify = %v", rep.Problems)
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if err := childCommit(d); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, d, "in the end")
}

// halfCommit kills a child when the first data file is in place.
func halfCommit(t *testing.T) *Dataset {
	t.Helper()
	trace, err := runChild(t, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, t.TempDir(), Config{})
	first := slices.Index(strings.Fields(trace), "dataset:data-dirsync:after")
	if out, err := runChild(t, d.Root(), nil, fmt.Sprintf("%s=%d", strikeEnv, first+1)); err == nil {
		t.Fatalf("the child was not killed:\n%s", out)
	}
	if n := visible(t, d); n != 1 {
		t.Fatalf("%d files are visible in the middle of the commit, want 1", n)
	}
	return d
}

func TestHalfCommitIsReportedAndRemovedWhenIncomplete(t *testing.T) {
	d := halfCommit(t)
	rep := mustVerify(t, d, false)
	if len(rep.Problems) != 1 || rep.Problems[0].Kind != HalfCommit || rep.OK() {
		t.Errorf("verify = %+v, want one half commit", rep.Problems)
	}
	staged := stagedPart(d.stagingDir(testRun), &File{Table: schema.Samples, Partition: map[string]string{"suite": "a"}})
	if err := os.Truncate(staged, 100); err != nil {
		t.Fatal(err)
	}
	rep = mustVerify(t, d, true)
	if len(rep.Problems) != 1 || !rep.Problems[0].Repaired || !strings.Contains(rep.Problems[0].Message, "removed") {
		t.Errorf("repair = %+v", rep.Problems)
	}
	if n := visible(t, d); n != 0 {
		t.Errorf("%d files of a removed commit are visible", n)
	}
}

func TestAnotherOutcomeReplacesAHalfCommit(t *testing.T) {
	d := halfCommit(t)
	tx := d.Begin(testRun, created.AddDate(0, 0, 7)) // another partition, no runs row
	if err := Add(tx, sample("c", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := visible(t, d); n != 1 {
		t.Errorf("%d files are visible, want the new one only", n)
	}
	if rep := mustVerify(t, d, false); !rep.OK() || rep.Rows != 1 {
		t.Errorf("verify = %+v", rep)
	}
}

func TestHalfCommitWithDamagedIntent(t *testing.T) {
	d := halfCommit(t)
	if err := os.WriteFile(d.intentPath(testRun), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if rep := mustVerify(t, d, true); !rep.OK() || len(rep.Problems) != 1 {
		t.Errorf("repair = %+v", rep.Problems)
	}
	if n := visible(t, d); n != 0 {
		t.Errorf("%d files are visible after the repair", n)
	}
	if err := childCommit(d); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, d, "in the end")
}
