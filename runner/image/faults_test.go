package image_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image"
)

// index serves packages where containers reach it, with a password and
// without upload dates.
func index(t testing.TB) string {
	t.Helper()
	files := map[string][]byte{
		"tinypkg-1.0-py3-none-any.whl": wheel(t, "tinypkg", "value = 1\n"),
		"asking-1.0.tar.gz":            sdist(t, "asking", "input('Continue? ')"),
		"sleeping-1.0.tar.gz":          sdist(t, "sleeping", "import time; print('now I sleep', flush=True); time.sleep(600)"),
		"flooding-1.0.tar.gz":          sdist(t, "flooding", "import os\nwhile True: os.write(2, b'x' * 65536)"),
		"snooping-1.0.tar.gz":          sdist(t, "snooping", "import os, glob\nprint(os.getuid(), dict(os.environ), [open(f).read() for f in glob.glob('/run/repromill/*.*')], flush=True)\nimport urllib.request\ntry:\n    urllib.request.urlopen('http://169.254.169.254/latest/meta-data', timeout=2)\n    print('the network is open', flush=True)\nexcept OSError as e:\n    print('no way out', e, flush=True)\nopen('/usr/x', 'w')"),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/{name}/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		found := false
		for f := range files {
			if strings.HasPrefix(f, r.PathValue("name")+"-") {
				fmt.Fprintf(w, `<a href="/files/%s">%s</a>`, f, f)
				found = true
			}
		}
		if !found {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("GET /files/{name}", func(w http.ResponseWriter, r *http.Request) { w.Write(files[r.PathValue("name")]) })
	l, err := net.Listen("tcp", "0.0.0.0:0")
	must(t, err)
	srv := httptest.NewUnstartedServer(mux)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return fmt.Sprintf("http://user:secret@172.17.0.1:%d/simple", l.Addr().(*net.TCPAddr).Port)
}

func wheel(t testing.TB, name, body string) []byte { return release(t, name, "1.0", "", body) }

// release is a wheel that requires another package.
func release(t testing.TB, name, version, requires, body string) []byte {
	if requires != "" {
		requires = "Requires-Dist: " + requires + "\n"
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	info := name + "-" + version + ".dist-info/"
	for _, f := range [][2]string{{name + ".py", body}, {info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n" + requires},
		{info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}, {info + "RECORD", ""}} {
		w, err := z.Create(f[0])
		must(t, err)
		_, err = io.WriteString(w, f[1])
		must(t, err)
	}
	must(t, z.Close())
	return buf.Bytes()
}

// sdist is a source distribution whose build runs a program.
func sdist(t testing.TB, name, program string) []byte {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	w := tar.NewWriter(zw)
	for _, f := range [][2]string{
		{"PKG-INFO", "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n"},
		{"pyproject.toml", "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"},
		{"backend.py", "def get_requires_for_build_wheel(c=None):\n    return []\ndef build_wheel(d, c=None, m=None):\n    " + strings.ReplaceAll(program, "\n", "\n    ") + "\n"},
	} {
		must(t, w.WriteHeader(&tar.Header{Name: name + "-1.0/" + f[0], Mode: 0o644, Size: int64(len(f[1])), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, f[1])
		must(t, err)
	}
	must(t, w.Close())
	must(t, zw.Close())
	return buf.Bytes()
}

// nothingLeft checks that no container, no work folder and no settings stay.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	e, err := engine.Open(context.Background(), engine.Config{Getenv: os.Getenv})
	must(t, err)
	defer e.Close()
	list, err := e.List(context.Background(), map[string]string{image.LabelBuild: ""})
	must(t, err)
	for _, c := range list { // other builders may be at work on the same engine
		if _, err := os.Stat(filepath.Join(dir, "logs", c.Labels[image.LabelBuild]+".log")); err == nil {
			t.Errorf("container %s (%s) is left", c.Name, c.Status)
		}
	}
	work, err := os.ReadDir(filepath.Join(dir, "work"))
	must(t, err)
	for _, f := range work {
		if !strings.HasSuffix(f.Name(), ".lock") {
			t.Errorf("%s is left", f.Name())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "repromill-build-*")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestBuildsThatMisbehave(t *testing.T) {
	url := ""
	var dir string
	make := func(t *testing.T, wall time.Duration) *image.Builder {
		return builder(t, func(c *image.Config) {
			if url == "" {
				url = index(t)
			}
			c.Index.URL, c.Limits.Wall, c.Limits.MemoryBytes, dir = url, wall, 1<<30, c.Dir
		})
	}
	for _, c := range []struct{ req, want string }{
		{"asking", "EOFError"},
		{"sleeping", "took longer than 12s (perhaps it waited for input"},
		{"flooding", "needed more than 1 GiB of memory"},
		{"snooping", "it does not build"},
		{"nowhere==7", "nowhere (nowhere==7) from requirements.txt:2: no package index has it"},
	} {
		t.Run(c.req, func(t *testing.T) {
			url = "" // the server ends with the test
			wall := 5 * time.Minute
			if c.req == "sleeping" {
				wall = 12 * time.Second
			}
			b := make(t, wall)
			src := checkout(t, map[string]string{"requirements.txt": "# what is needed\n" + c.req + "\n"})
			env, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("-r requirements.txt"), Source: src})
			must(t, err)
			if env.Failure == nil || !strings.Contains(env.Failure.String(), c.want) || !strings.Contains(env.Failure.String(), env.Log) {
				t.Fatalf("%s, want %q", env.Failure, c.want)
			}
			log, err := os.ReadFile(env.Log)
			must(t, err)
			if strings.Contains(string(log), "secret") {
				t.Error("the build saw the password of the index")
			}
			if text := string(log); c.req == "snooping" && (!strings.Contains(text, "Read-only file system") || !strings.Contains(text, "no way out") ||
				confined() && !strings.Contains(text, "refused 169.254.169.254:80")) {
				t.Errorf("the build could write to the system, or reach what it must not:\n%s", log)
			}
			nothingLeft(t, dir)
		})
	}
}

// TestNothingIsBakedIn builds from an index of the site and looks for it in
// everything that becomes part of the image.
func TestNothingIsBakedIn(t *testing.T) {
	var dir string
	b := builder(t, func(c *image.Config) {
		c.Index.URL, dir = index(t), c.Dir
		c.Index.Proxy, c.Index.NoProxy = "http://proxy-of-the-site.invalid:3128", "172.17.0.1"
	})
	req := image.EnvRequest{Environment: wants("tinypkg"), Source: t.TempDir()}
	when := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	req.Environment.ExcludeNewer = &when
	env, err := b.Environment(context.Background(), req)
	must(t, err)
	if env.Failure != nil || !strings.Contains(env.Lock, "tinypkg==1.0") {
		t.Fatalf("%s\n%+v", env.Failure, env)
	}
	var what []string
	for _, d := range env.Deviations {
		what = append(what, d.What+": "+d.Used)
	}
	if got := strings.Join(what, "; "); !strings.Contains(got, "exclude_newer: unbounded") || !strings.Contains(got, "package index: 172.17.0.1") {
		t.Errorf("deviations: %s", got)
	}
	for _, word := range []string{"secret", "172.17.0.1:", "proxy-of-the-site"} {
		if in := holds(t, env.Image, word, 1); in != "" {
			t.Errorf("%q stands in %s", word, in)
		}
	}
	nothingLeft(t, dir)
}

// holds finds a word in the configuration or the last n layers of an image.
func holds(t testing.TB, img v1.Image, word string, n int) string {
	cfg, err := img.RawConfigFile()
	must(t, err)
	// The deviations name the host of the index, in a label of its own encoding.
	if bytes.Contains(cfg, []byte(word)) {
		return "the configuration"
	}
	layers, err := img.Layers()
	must(t, err)
	for _, l := range layers[len(layers)-n:] {
		rc, err := l.Uncompressed()
		must(t, err)
		defer rc.Close()
		r := tar.NewReader(rc)
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			body, err := io.ReadAll(r)
			must(t, err)
			if bytes.Contains(body, []byte(word)) || strings.Contains(h.Name, word) {
				return h.Name
			}
		}
	}
	return ""
}

// TestInterrupted cancels a build that sleeps.
func TestInterrupted(t *testing.T) {
	var dir string
	ctx, cancel := context.WithCancel(context.Background())
	b := builder(t, func(c *image.Config) {
		c.Index.URL, dir = index(t), c.Dir
		c.Progress = func(e image.Event) {
			if e.Stage == "resolve" {
				time.AfterFunc(time.Second, cancel)
			}
		}
	})
	start := time.Now()
	_, err := b.Environment(ctx, image.EnvRequest{Environment: wants("sleeping"), Source: t.TempDir()})
	if !errors.Is(err, context.Canceled) || time.Since(start) > 60*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	nothingLeft(t, dir)
}

// TestDiskFull builds where there is too little room: for installing, and for
// the layer of what was installed.
func TestDiskFull(t *testing.T) {
	for name, size := range map[string]string{"installing": "30m", "the layer": "74m"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
				t.Skip("only root can mount a small disk: ", err)
			}
			t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
			at := filepath.Join(dir, "images")
			stages := ""
			b := builder(t, func(c *image.Config) {
				c.Dir, c.Limits.FreeBytes = at, 1<<20
				c.Progress = func(e image.Event) { stages += " " + e.Stage }
			})
			env, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("numpy==1.26.4"), Source: t.TempDir()})
			var user *image.UserError
			if !errors.As(err, &user) || !strings.Contains(user.Problem, "the disk is full") || !strings.Contains(user.Fix, "image prune") {
				t.Errorf("%v, %+v", err, env)
			}
			if strings.Contains(stages, "layer") != (name == "the layer") {
				t.Errorf("it ended after%s", stages)
			}
			nothingLeft(t, at)
			must(t, filepath.WalkDir(at, func(p string, e os.DirEntry, err error) error {
				if err == nil && (strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(p, ".tmp")) {
					t.Errorf("%s is left", p)
				}
				return err
			}))
			t.Log(err)
		})
	}
}

// TestSystemPackages installs one package of the distribution and leaves out
// one that it does not have.
func TestSystemPackages(t *testing.T) {
	b := builder(t, nil)
	req := image.EnvRequest{Environment: wants(), Source: t.TempDir()}
	req.Environment.SystemPackages = []string{"no-such-package-xyz", "libgomp1"}
	env, err := b.Environment(context.Background(), req)
	must(t, err)
	if env.Failure != nil || len(env.Deviations) != 1 || env.Deviations[0].Declared != "no-such-package-xyz" {
		t.Fatalf("%s %+v", env.Failure, env.Deviations)
	}
	ref, err := b.Load(context.Background(), env.Image, "repromill/test:system")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "-c", "import ctypes; ctypes.CDLL('libgomp.so.1'); print('loaded')"); code != 0 || out != "loaded\n" {
		t.Errorf("%d %s", code, out)
	}
	_, err = b.Prune(context.Background(), 0)
	must(t, err)
}
