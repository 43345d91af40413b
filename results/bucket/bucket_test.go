package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// committed makes a results folder with a run of two claims and a log.
func committed(t testing.TB, id string, at time.Time) *dataset.Dataset {
	t.Helper()
	d, err := dataset.Open(t.TempDir(), dataset.Config{Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, d, id, at, 1<<10)
	return d
}

// large is more than one part of a multipart upload.
const large = 12 << 20

func commit(t testing.TB, d *dataset.Dataset, id string, at time.Time, log int64) {
	t.Helper()
	tx := d.Begin(id, at)
	common := schema.Common{Kind: schema.Published}
	err := dataset.Add(tx, schema.ClaimRow{Common: common, ClaimID: "c1", Text: "at " + at.String()}, schema.ClaimRow{Common: common, ClaimID: "c2"})
	if err == nil {
		err = tx.Attach("plan.json", []byte("{}\n"))
	}
	if err == nil {
		err = tx.AttachFrom("logs/execute.out", io.LimitReader(endless{}, log))
	}
	if err == nil {
		_, err = tx.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte('a' + i%23)
	}
	return len(p), nil
}

var day = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// stores are the object stores that the tests run on, by name.
func stores(t *testing.T) map[string]func(Config) *Bucket {
	t.Helper()
	server := newS3(t)
	folder := t.TempDir()
	memory := memblob.OpenBucket(nil)
	at := func(url string) func(Config) *Bucket {
		return func(cfg Config) *Bucket {
			b, err := Open(t.Context(), url, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return b
		}
	}
	return map[string]func(Config) *Bucket{
		"s3": at(server.url("/team/a")), "file": at("file://" + folder + "/new"),
		"mem": func(cfg Config) *Bucket { return open(memory, "mem://", cfg) },
	}
}

// whole fails unless the bucket holds exactly the given runs, whole.
func whole(t *testing.T, b *Bucket, runs int) {
	t.Helper()
	rep, err := b.Verify(t.Context())
	if err != nil || !rep.OK() || rep.Runs != runs || rep.Rows != int64(2*runs) {
		t.Errorf("verified %+v, %v; want %d whole runs of two rows", rep, err, runs)
	}
}

func TestPush(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := store(Config{})
			d := committed(t, "run1", day)
			commit(t, d, "run2", day, large)
			for _, id := range []string{"run1", "run2"} {
				p, err := b.Push(t.Context(), d, id, false)
				if err != nil || p.Already || p.Files != 3 || !strings.HasSuffix(p.Manifest, "/_runs/"+id+"/manifest.json") {
					t.Fatalf("pushed %+v, %v", p, err)
				}
			}
			whole(t, b, 2)
			p, err := b.Push(t.Context(), d, "run1", false)
			if err != nil || !p.Already || p.Other || p.Files != 0 {
				t.Errorf("pushed again: %+v, %v", p, err)
			}
			m, err := b.Manifest(t.Context(), "run1")
			if err != nil || m.RunID != "run1" || len(m.Files) != 1 {
				t.Errorf("manifest %+v, %v", m, err)
			}
			other := committed(t, "run1", day.Add(time.Hour)) // the same run, committed somewhere else too
			if p, err := b.Push(t.Context(), other, "run1", false); err != nil || !p.Already || !p.Other {
				t.Errorf("pushed another commit: %+v, %v", p, err)
			}
			whole(t, b, 2)
		})
	}
}

// TestPushMerged: runs whose rows share files go to the store in files of their
// own, and one that was there before stays as it is.
func TestPushMerged(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := store(Config{})
			d := committed(t, "run1", day)
			commit(t, d, "run2", day, 10)
			if _, err := b.Push(t.Context(), d, "run1", false); err != nil {
				t.Fatal(err)
			}
			if rep, err := d.Compact(t.Context(), dataset.CompactConfig{}); err != nil || rep.Merged != 1 {
				t.Fatalf("%+v, %v", rep, err)
			}
			for id, there := range map[string]bool{"run1": true, "run2": false} {
				p, err := b.Push(t.Context(), d, id, false)
				if err != nil || p.Already != there || p.Other {
					t.Errorf("%s: %+v, %v", id, p, err)
				}
				if p, err = b.Push(t.Context(), d, id, false); err != nil || !p.Already || p.Other {
					t.Errorf("%s again: %+v, %v", id, p, err)
				}
			}
			whole(t, b, 2)
		})
	}
}

// killed is what a hook does in place of kill -9: nothing after it happens.
type killed struct{}

// TestKilledAtEveryStep: whoever pushes after a process that died anywhere
// finds the run there once and whole, even where its own commit has other bytes.
func TestKilledAtEveryStep(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			d := committed(t, "first", day)
			if _, err := store(Config{}).Push(t.Context(), d, "first", false); err != nil {
				t.Fatal(err)
			}
			commit(t, d, "trace", day, 1<<10)
			var points []string
			if _, err := store(Config{Parallel: 1, Hook: func(p string) { points = append(points, p) }}).Push(t.Context(), d, "trace", false); err != nil {
				t.Fatal(err)
			}
			if len(points) < 12 {
				t.Fatalf("the steps are %q", points)
			}
			for n, point := range points {
				id := fmt.Sprintf("run%d", n)
				commit(t, d, id, day, 1<<10)
				die(t, store, d, id, n)
				b := store(Config{})
				other := committed(t, id, day.Add(time.Minute))
				_, err := b.Push(t.Context(), other, id, false)
				var conflict *ConflictError
				begun := n > slices.Index(points, "bucket:intent:before") && n < slices.Index(points, "bucket:manifest:after")
				if errors.As(err, &conflict) != begun || err != nil && !begun {
					t.Errorf("after a kill at %d %s another commit gave %v", n, point, err)
				}
				if _, err := b.Push(t.Context(), d, id, false); err != nil {
					t.Errorf("after a kill at %d %s: %v", n, point, err)
				}
			}
			whole(t, store(Config{}), len(points)+2)
		})
	}
}

// die pushes a run and dies at the n-th step.
func die(t *testing.T, store func(Config) *Bucket, d *dataset.Dataset, id string, n int) {
	t.Helper()
	i := -1
	b := store(Config{Parallel: 1, Hook: func(string) {
		if i++; i == n {
			panic(killed{})
		}
	}})
	defer func() {
		if recover() == nil {
			t.Errorf("step %d was not reached", n)
		}
	}()
	b.Push(t.Context(), d, id, false)
}

func TestTakeOver(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			gone := committed(t, "run1", day)
			die(t, store, gone, "run1", 7) // in the middle of the files
			b := store(Config{})
			if rep, err := b.Verify(t.Context()); err != nil || len(rep.Problems) != 1 || rep.Problems[0].Kind != dataset.HalfCommit {
				t.Errorf("half a commit is %+v, %v", rep, err)
			}
			d := committed(t, "run1", day.Add(time.Hour))
			if p, err := b.Push(t.Context(), d, "run1", true); err != nil || p.Already {
				t.Errorf("taken over: %+v, %v", p, err)
			}
			whole(t, b, 1)
		})
	}
}

// TestManyAtOnce: of many processes with different commits of one run one gets
// its bytes there.
func TestManyAtOnce(t *testing.T) {
	server := newS3(t)
	var wg sync.WaitGroup
	for i := range 8 {
		d := committed(t, "run1", day.Add(time.Duration(i)*time.Minute))
		b, err := Open(t.Context(), server.url(""), Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		wg.Go(func() {
			var conflict *ConflictError
			if _, err := b.Push(t.Context(), d, "run1", false); err != nil && !errors.As(err, &conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, err := Open(t.Context(), server.url(""), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	whole(t, b, 1)
	for key, n := range server.puts {
		if n > 1 && !strings.HasSuffix(key, intentDoc) && !strings.HasSuffix(key, schemaDoc) {
			t.Errorf("%s was written %d times", key, n)
		}
	}
}

// TestLostAnswers: a write whose answer is lost is no failure and is not
// taken for somebody else's.
func TestLostAnswers(t *testing.T) {
	server := newS3(t)
	lost := map[string]bool{}
	server.fault = func(r *http.Request, after bool) bool {
		id := r.Method + r.URL.Path
		if !after || r.Method != "PUT" && r.Method != "DELETE" || lost[id] {
			return false
		}
		lost[id] = true
		return true
	}
	b, err := Open(t.Context(), server.url(""), Config{Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p, err := b.Push(t.Context(), committed(t, "run1", day), "run1", false)
	if err != nil || p.Other {
		t.Errorf("pushed %+v, %v", p, err)
	}
	if len(lost) < 4 {
		t.Errorf("only %v were lost", slices.Collect(maps.Keys(lost)))
	}
	whole(t, b, 1)
}

func TestDamagedFileIsNotSent(t *testing.T) {
	server := newS3(t)
	d := committed(t, "run1", day)
	log := filepath.Join(d.Root(), "_runs/run1/plan.json")
	if err := os.WriteFile(log, []byte("[]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), server.url(""), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, err = b.Push(t.Context(), d, "run1", false)
	var corrupt *dataset.CorruptError
	if !errors.As(err, &corrupt) || corrupt.Path != log {
		t.Errorf("pushed a damaged file: %v", err)
	}
	for key := range server.objects {
		if strings.HasSuffix(key, "plan.json") || strings.HasSuffix(key, manifestDoc) {
			t.Errorf("%s is there", key)
		}
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	server := newS3(t)
	d := committed(t, "run1", day)
	b, err := Open(t.Context(), server.url(""), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Push(t.Context(), d, "run1", false); err != nil {
		t.Fatal(err)
	}
	for key, o := range server.objects {
		switch {
		case strings.HasSuffix(key, ".parquet"):
			o.body = append([]byte{1}, o.body[1:]...)
			server.objects[key] = o
		case strings.HasSuffix(key, "plan.json"):
			delete(server.objects, key)
		}
	}
	server.objects["claims/v1/date=2026-11-20/part-ghost-0.parquet"] = object{body: []byte("PAR1")}
	rep, err := b.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, p := range rep.Problems {
		kinds = append(kinds, string(p.Kind))
	}
	slices.Sort(kinds)
	if want := []string{"file_damaged", "file_missing", "orphan_file"}; !slices.Equal(kinds, want) {
		t.Errorf("found %q, want %q", kinds, want)
	}
}

func TestRefusals(t *testing.T) {
	server := newS3(t)
	for url, want := range map[string]string{
		"":                              "names no object store",
		"https://bucket/x":              "names no object store",
		"s3://":                         "names no bucket",
		"file://relative/path":          "three slashes",
		"s3://AKIA:secret@bucket":       "holds credentials",
		"s3://bucket?region=x&nosuch=1": "cannot be opened",
	} {
		_, err := Open(t.Context(), url, Config{})
		var user *UserError
		if !errors.As(err, &user) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%q: %v; want %q", url, err, want)
		}
	}
	for name, tc := range map[string]struct{ url, secret, want string }{
		"a wrong secret": {server.url(""), "wrong", "credentials that may read"},
		"no such bucket": {strings.Replace(server.url(""), testBucket, "nowhere", 1), testSecret, "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_SECRET_ACCESS_KEY", tc.secret)
			b, err := Open(t.Context(), tc.url, Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = b.Push(ctx, committed(t, "run1", day), "run1", false)
			var user *UserError
			if !errors.As(err, &user) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want %q", err, tc.want)
			}
		})
	}
}
