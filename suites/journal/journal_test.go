package journal_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/journal"
	"github.com/repromill/repromill/suites/suitetest"
)

func open(t testing.TB, c journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func record(i int) suites.Record {
	return suites.Record{Key: suites.Key{Suite: "s", Arm: "a", ItemID: fmt.Sprint(i)}, Text: strings.Repeat("text\n", i%50), OutputTokens: int64(i)}
}

func TestConformance(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "answers")
		var last *journal.Journal
		suitetest.Journal(t, func(t *testing.T) suites.Journal {
			if last != nil {
				last.Close() // as the end of a process would
			}
			last = open(t, journal.Config{Path: path, NoSync: noSync})
			return last
		})
		last.Close()
	}
}

// TestCutAnywhere cuts the file at every byte: what was whole is there, what was
// not is gone, and the journal goes on.
func TestCutAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	j := open(t, journal.Config{Path: path, NoSync: true})
	var ends []int64
	for i := range 4 {
		if err := j.Append(record(i)); err != nil {
			t.Fatal(err)
		}
		info, _ := os.Stat(path)
		ends = append(ends, info.Size())
	}
	j.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range ends {
			if int64(cut) >= e {
				want++
			}
		}
		j := open(t, journal.Config{Path: path, NoSync: true})
		if err := j.Append(record(9)); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		n := 0
		if err := j.Replay(func(suites.Record) error { n++; return nil }); err != nil || n != want+1 {
			t.Errorf("cut at %d: %d records, %v, want %d", cut, n, err, want+1)
		}
		j.Close()
	}
}

func TestDamageIsNotTakenForACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	j := open(t, journal.Config{Path: path})
	for i := range 3 {
		if err := j.Append(record(i)); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	b, _ := os.ReadFile(path)
	b[20] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := journal.Open(journal.Config{Path: path})
	var damage *journal.DamageError
	if !errors.As(err, &damage) || damage.Line != 1 {
		t.Errorf("%v", err)
	}
}

// TestCrashOfTheMachine loses the first of several records that no sync had
// covered: none of them was acknowledged, so this is no damage.
func TestCrashOfTheMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	j := open(t, journal.Config{Path: path})
	if err := j.Append(record(1)); err != nil {
		t.Fatal(err)
	}
	info, _ := os.Stat(path)
	first := info.Size()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := j.Append(record(i + 2)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	j.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	together := false
	for i, line := range bytes.SplitAfter(b[first:], []byte("\n")) {
		if fields := bytes.Fields(line); i > 0 && len(fields) > 1 && string(fields[1]) == fmt.Sprint(first) {
			together = true // written while the one before it was not durable
			lost := bytes.Clone(b[:first+int64(bytes.Index(b[first:], line))+int64(len(line))])
			lost[first+20] ^= 1
			if err := os.WriteFile(path, lost, 0o600); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if !together {
		t.Skip("every record had a sync of its own")
	}
	j = open(t, journal.Config{Path: path})
	defer j.Close()
	n := 0
	if err := j.Replay(func(suites.Record) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	j := open(t, journal.Config{Path: path})
	defer j.Close()
	_, err := journal.Open(journal.Config{Path: path})
	var inUse *journal.InUseError
	if !errors.As(err, &inUse) {
		t.Errorf("%v", err)
	}
}

// TestKill kills a writer without warning, again and again. Every record whose
// Append returned is there, and at most one more for each kill.
func TestKill(t *testing.T) {
	if path := os.Getenv("JOURNAL_TEST_WRITER"); path != "" {
		write(path)
	}
	path := filepath.Join(t.TempDir(), "answers")
	acked, kills := map[string]bool{}, 8
	for round := range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "JOURNAL_TEST_WRITER="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			acked[sc.Text()] = true
			if n == 5+round*7 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
	}
	j := open(t, journal.Config{Path: path})
	defer j.Close()
	n := 0
	err := j.Replay(func(r suites.Record) error {
		n++
		delete(acked, r.ItemID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged records are lost", len(acked))
	}
	if n < kills*6 {
		t.Errorf("only %d records", n)
	}
}

// write appends records from where the journal stands, and says so, until it is
// killed.
func write(path string) {
	j, err := journal.Open(journal.Config{Path: path})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		r := record(i)
		if j.Has(r.Key) {
			continue
		}
		if err := j.Append(r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(r.ItemID)
		if i > 100_000 {
			time.Sleep(time.Minute)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, noSync := range []bool{false, true} {
		b.Run(fmt.Sprintf("nosync=%v", noSync), func(b *testing.B) {
			j := open(b, journal.Config{Path: filepath.Join(b.TempDir(), "answers"), NoSync: noSync})
			defer j.Close()
			r := record(49)
			for i := 0; b.Loop(); i++ {
				r.ItemID = fmt.Sprint(i)
				if err := j.Append(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
