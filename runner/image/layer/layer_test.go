package layer_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/repromill/repromill/runner/image/layer"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree lays out the same content, in another order and with other times.
func tree(t testing.TB, reverse bool) string {
	dir := t.TempDir()
	files := []string{"b.txt", "a/x.py", "a.txt", "a/run.sh", "z/deep/" + strings.Repeat("n", 120) + "/" + strings.Repeat("m", 120)}
	if reverse {
		for i, j := 0, len(files)-1; i < j; i, j = i+1, j-1 {
			files[i], files[j] = files[j], files[i]
		}
	}
	for _, f := range files {
		p := filepath.Join(dir, f)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(f, ".sh") {
			mode = 0o755
		}
		if reverse { // whatever does not matter differs
			mode |= 0o020
		}
		must(t, os.WriteFile(p, []byte("content of "+f), mode))
		must(t, os.Chmod(p, mode))
		if reverse {
			must(t, os.Chtimes(p, time.Unix(1, 5), time.Unix(2, 7)))
		}
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	return dir
}

func write(t testing.TB, dir string, o layer.Options) *layer.Layer {
	l, err := layer.Store{Dir: t.TempDir()}.Write(context.Background(), dir, o)
	must(t, err)
	return l
}

func TestSameContentSameBytes(t *testing.T) {
	o := layer.Options{At: "/work/src", Time: time.Unix(1700000000, 999)}
	a, b := write(t, tree(t, false), o), write(t, tree(t, true), o)
	if a.Descriptor() != b.Descriptor() {
		t.Errorf("%+v\n%+v", a.Descriptor(), b.Descriptor())
	}
	// The bytes themselves are pinned: an image's digest must not change with
	// the version of this program unless its builder version does.
	const want = "sha256:a1c5c30a057cdd7a7585db8fadd1a2564b907c04e2c8fc6409e7f9e92b17e05c"
	if got := a.Descriptor().DiffID.String(); got != want {
		t.Errorf("diff id %s, want %s", got, want)
	}
	o.Time = o.Time.Add(time.Second)
	if c := write(t, tree(t, false), o); c.Descriptor().DiffID == a.Descriptor().DiffID {
		t.Error("another time gave the same layer")
	}
}

func TestEntries(t *testing.T) {
	l := write(t, tree(t, false), layer.Options{At: "/work/src", Skip: func(rel string, _ fs.DirEntry) bool { return rel == "a" }})
	rc, err := l.Uncompressed()
	must(t, err)
	defer rc.Close()
	var got []string
	r := tar.NewReader(rc)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		name := h.Name
		if len(name) > 60 {
			name = name[:20] + "…"
			if strings.HasSuffix(h.Name, "m") && h.Format != tar.FormatPAX {
				t.Errorf("%s: format %v", name, h.Format)
			}
		} else if h.Format != tar.FormatUSTAR {
			t.Errorf("%s: format %v, want USTAR", name, h.Format)
		}
		if !h.ModTime.Equal(layer.Epoch()) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: %+v", name, h)
		}
		got = append(got, fmt.Sprintf("%c %o %s %s", h.Typeflag, h.Mode, name, h.Linkname))
	}
	want := `5 755 work/ 
5 755 work/src/ 
0 644 work/src/a.txt 
0 644 work/src/b.txt 
2 777 work/src/link /etc/passwd
5 755 work/src/z/ 
5 755 work/src/z/deep/ 
5 755 work/src/z/deep/nnnn… 
0 644 work/src/z/deep/nnnn… `
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if d := l.Descriptor(); d.Left != 1 || d.Files != 8 {
		t.Errorf("%+v", d)
	}
}

func TestLayerIsSound(t *testing.T) {
	l := write(t, tree(t, false), layer.Options{At: "/src"})
	must(t, validate.Layer(l))
	img, err := mutate.AppendLayers(empty.Image, l)
	must(t, err)
	must(t, validate.Image(img))
}

func TestLimitsAndLeftovers(t *testing.T) {
	dir := tree(t, false)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, c := range map[string]struct {
		ctx context.Context
		o   layer.Options
		dir string
	}{
		"bytes":     {context.Background(), layer.Options{MaxBytes: 20}, dir},
		"files":     {context.Background(), layer.Options{MaxFiles: 3}, dir},
		"cancelled": {ctx, layer.Options{}, dir},
		"no folder": {context.Background(), layer.Options{}, filepath.Join(dir, "none")},
	} {
		store := layer.Store{Dir: t.TempDir()}
		_, err := store.Write(c.ctx, c.dir, c.o)
		var limit *layer.LimitError
		if err == nil || errors.As(err, &limit) != (c.o.MaxBytes+int64(c.o.MaxFiles) > 0) {
			t.Errorf("%s: %v", name, err)
		}
		left, err := os.ReadDir(filepath.Join(store.Dir, "blobs", "sha256"))
		must(t, err)
		if len(left) != 0 {
			t.Errorf("%s left %v behind", name, left)
		}
	}
}

func TestOpen(t *testing.T) {
	store := layer.Store{Dir: t.TempDir()}
	l, err := store.Write(context.Background(), tree(t, false), layer.Options{})
	must(t, err)
	again, err := store.Open(l.Descriptor())
	must(t, err)
	must(t, validate.Layer(again))
	must(t, os.Truncate(store.Path(l.Descriptor().Digest), 10))
	if _, err := store.Open(l.Descriptor()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cut file: %v", err)
	}
}

// source writes about n MiB of files as source code has them.
func source(t testing.TB, mib int) string {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("def return self import numpy as np for in range if else class torch nn Module forward loss = ( ) : , x y 0.5 128")
	var sb strings.Builder
	for i := range mib * 16 { // 64 KiB each
		sb.Reset()
		for sb.Len() < 64<<10 {
			sb.WriteString(words[rng.IntN(len(words))])
			sb.WriteByte(" \n"[rng.IntN(8)/7])
		}
		p := filepath.Join(dir, fmt.Sprintf("pkg%03d", i/16), fmt.Sprintf("m%02d.py", i%16))
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(sb.String()), 0o644))
	}
	return dir
}

// BenchmarkWrite shows the speed, and with heap-MiB that memory does not grow
// with the folder.
func BenchmarkWrite(b *testing.B) {
	for _, mib := range []int{50, 500} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			dir := source(b, mib)
			store := layer.Store{Dir: b.TempDir()}
			b.SetBytes(int64(mib) << 20)
			var peak uint64
			for b.Loop() {
				stop, done := make(chan struct{}), make(chan uint64)
				go watch(stop, done)
				_, err := store.Write(context.Background(), dir, layer.Options{At: "/src"})
				close(stop)
				peak = max(peak, <-done)
				must(b, err)
			}
			b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
		})
	}
}

// watch reports the largest heap it sees.
func watch(stop <-chan struct{}, done chan<- uint64) {
	runtime.GC()
	var m runtime.MemStats
	var peak uint64
	for {
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
		select {
		case <-stop:
			done <- peak
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}
