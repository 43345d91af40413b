package fetch

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// unname takes a mirror's file name back to what it was made from.
func unname(name string) (host, escapedPath, query, part string, err error) {
	if strings.Contains(name, cutMark) {
		return "", "", "", "", errors.New("the name was cut")
	}
	segments := strings.Split(name, "/")
	for i, s := range segments[1:] {
		if i+2 == len(segments) {
			if stem, ok := strings.CutSuffix(s, ".meta%2Ejson"); ok {
				s = stem + ".meta.json"
			}
			s, query, _ = strings.Cut(s, "@")
			query, part, _ = strings.Cut(query, "@")
		}
		dec, err := url.PathUnescape(s)
		if err != nil {
			return "", "", "", "", err
		}
		escapedPath += "/" + escapeSegment(dec)
	}
	host, err = url.PathUnescape(segments[0])
	return host, escapedPath, query, part, err
}

// checkName fails where a name could leave the mirror, or not exist.
func checkName(t *testing.T, name string) {
	t.Helper()
	if !filepath.IsLocal(name) || strings.HasSuffix(name, metaSuffix) || len(strings.Split(name, "/")) < 2 {
		t.Fatalf("name %q", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || len(part) > maxName || strings.ContainsAny(part, "\\:*?\"<>| \x00") {
			t.Fatalf("part %q of name %q", part, name)
		}
	}
}

func TestMirrorName(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tc := range []struct{ host, path, query, part, want string }{
		{"arxiv.org", "/abs/2604.08075", "", "", "arxiv.org/abs/2604.08075"},
		{"export.arxiv.org", "/api/query", "id_list=2604.08075&max_results=1", "", "export.arxiv.org/api/query@id_list=2604.08075&max_results=1"},
		{"huggingface.co", "/api/models/nvidia/Qwen3.6-27B-NVFP4", "", "", "huggingface.co/api/models/nvidia/Qwen3.6-27B-NVFP4"},
		{"huggingface.co", "/api/models/a/tree/refs%2Fpr%2F1", "recursive=true", "", "huggingface.co/api/models/a/tree/refs%2Fpr%2F1@recursive=true"},
		{"huggingface.co", "/a/b/resolve/main/.gitattributes", "", "", "huggingface.co/a/b/resolve/main/%2Egitattributes"},
		{"github.com", "/", "", "", "github.com/@"},
		{"github.com", "/a/", "q=1", "", "github.com/a/@q=1"},
		{"github.com", "/a/x.meta.json", "", "", "github.com/a/x.meta%2Ejson"},
		{"github.com", "/a", "f=x.meta.json", "", "github.com/a@f=x.meta%2Ejson"},
		{"github.com", "/a%40b", "", "", "github.com/a%40b"},
		{"huggingface.co", "/w.safetensors", "", "bytes=0-7", "huggingface.co/w.safetensors@@bytes=0-7"},
		{"127.0.0.1:8080", "/x", "", "", "127.0.0.1%3A8080/x"},
	} {
		got := mirrorName(tc.host, tc.path, tc.query, tc.part)
		if got != tc.want {
			t.Errorf("mirrorName(%q, %q, %q, %q) = %q, want %q", tc.host, tc.path, tc.query, tc.part, got, tc.want)
		}
		checkName(t, got)
		if host, path, query, part, err := unname(got); err != nil || host != tc.host || path != tc.path || query != tc.query || part != tc.part {
			t.Errorf("%q reads back as %q %q %q %q, %v", got, host, path, query, part, err)
		}
	}
	a, b := mirrorName("h", "/"+long, "", ""), mirrorName("h", "/"+long+"y", "", "")
	checkName(t, a)
	if a == b {
		t.Error("two long names are one")
	}
	if a, b := otherName("h/Qwen/x"), otherName("h/qwen/x"); strings.EqualFold(a, b) || !strings.HasPrefix(a, "h/") {
		t.Errorf("other names %q and %q", a, b)
	}
}

func FuzzMirrorName(f *testing.F) {
	f.Add("a", "b.meta.json", "q=1", "x/y")
	f.Add("..", ".git", "", "A%2fb")
	f.Add("@", "@bytes=1-2", "a@b", strings.Repeat("%", 90))
	f.Add("", "é", "a=%", "\\")
	names := map[string][4]string{}
	var mu sync.Mutex
	f.Fuzz(func(t *testing.T, a, b, q, last string) {
		path, err := cleanPath(Path(a, b, last))
		if err != nil {
			return
		}
		values, err := url.ParseQuery(q)
		if err != nil {
			return
		}
		name := mirrorName("huggingface.co", path, values.Encode(), "")
		checkName(t, name)
		checkName(t, otherName(name))
		if host, p, query, part, err := unname(name); err == nil && (host != "huggingface.co" || p != path || query != values.Encode() || part != "") {
			t.Fatalf("%q reads back as %q %q %q", name, p, query, part)
		}
		mu.Lock()
		defer mu.Unlock()
		key := [4]string{path, values.Encode()}
		if was, ok := names[name]; ok && was != key {
			t.Fatalf("%q is the name of %q and of %q", name, was, key)
		}
		names[name] = key
	})
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMirrorServes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "arxiv.org/abs/2604.08075", "<!doctype html><html><title>x</title></html>")
	write(t, dir, "export.arxiv.org/api/query@id_list=2604.08075", `<?xml version="1.0"?><feed/>`)
	write(t, dir, "huggingface.co/api/models/a/b", `{"id":"a/b"}`)
	write(t, dir, "huggingface.co/api/models/a/b@blobs=true", `{"id":"a/b","siblings":[]}`)
	write(t, dir, "huggingface.co/api/models/c/d@", `{"id":"c/d"}`)
	write(t, dir, "huggingface.co/api/models/c/d/tree/main", `[]`)
	write(t, dir, "huggingface.co/gone", "")
	write(t, dir, "huggingface.co/gone.meta.json", `{"url":"https://huggingface.co/gone","status":404,"header":{"X-Error-Code":["RepoNotFound"]}}`)
	write(t, dir, "huggingface.co/broken", "x")
	write(t, dir, "huggingface.co/broken.meta.json", `{"status":"?"}`)
	write(t, dir, "huggingface.co/w.safetensors", "0123456789")
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "huggingface.co", "leak")); err != nil {
		t.Fatal(err)
	}
	// An endpoint and a cache folder do not matter to a mirror.
	c, _ := client(t, nil, func(cfg *Config) {
		cfg.Mirror, cfg.CacheDir, cfg.Endpoints = dir, "", map[Site]string{HF: "http://127.0.0.1:9"}
	})
	for in, want := range map[string][2]string{
		"https://arxiv.org/abs/2604.08075":                           {"<!doctype html><html><title>x</title></html>", "text/html; charset=utf-8"},
		"https://export.arxiv.org/api/query?id_list=2604.08075":      {`<?xml version="1.0"?><feed/>`, "text/xml; charset=utf-8"},
		"https://huggingface.co/api/models/a/b":                      {`{"id":"a/b"}`, "application/json"},
		"http://127.0.0.1:9/api/models/a/b?blobs=true":               {`{"id":"a/b","siblings":[]}`, "application/json"},
		"https://huggingface.co/api/models/c/d":                      {`{"id":"c/d"}`, "application/json"},
		"https://huggingface.co/api/models/c/d/tree/main#irrelevant": {`[]`, "application/json"},
	} {
		res, err := c.Get(t.Context(), Request{URL: in})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if string(res.Body) != want[0] || res.Header.Get("Content-Type") != want[1] || !res.FromMirror || res.FromCache ||
			!strings.HasPrefix(res.URL, "https://") || len(res.SHA256) != 64 || !res.FetchedAt.IsZero() {
			t.Errorf("%s: %+v", in, res)
		}
		if onDisk, err := os.ReadFile(res.Path); err != nil || string(onDisk) != want[0] {
			t.Errorf("%s: path %q: %v", in, res.Path, err)
		}
	}
	var missing *NotInMirrorError
	_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/A/b?x=1"})
	if !errors.As(err, &missing) || missing.File != "huggingface.co/api/models/A/b@x=1" || !strings.Contains(err.Error(), "repromill mirror add") {
		t.Errorf("missing file: %v", err)
	}
	if _, err = c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/a"}); !errors.As(err, &missing) {
		t.Errorf("a folder: %v", err)
	}
	var status *StatusError
	if _, err = c.Get(t.Context(), Request{URL: "https://huggingface.co/gone"}); !errors.As(err, &status) || status.Status != 404 || status.Header.Get("X-Error-Code") == "" {
		t.Errorf("recorded 404: %v", err)
	}
	var user interface{ UserError() string }
	if _, err = c.Get(t.Context(), Request{URL: "https://huggingface.co/broken"}); !errors.As(err, &user) || !strings.Contains(err.Error(), "broken.meta.json") {
		t.Errorf("broken sidecar: %v", err)
	}
	if res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/leak"}); err == nil {
		t.Errorf("a link leads outside of the mirror: %q", res.Body)
	}
	var blocked *BlockedError
	if _, err = c.Get(t.Context(), Request{URL: "https://evil.example/"}); !errors.As(err, &blocked) {
		t.Errorf("unknown host: %v", err)
	}
	var large *TooLargeError
	if _, err = c.Get(t.Context(), Request{URL: "https://huggingface.co/w.safetensors", MaxBytes: 9}); !errors.As(err, &large) {
		t.Errorf("too large: %v", err)
	}
	part, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/w.safetensors", Offset: 2, Length: 3})
	if err != nil || string(part.Body) != "234" || part.Status != 206 || part.Header.Get("Content-Range") != "bytes 2-4/10" {
		t.Errorf("part: %+v, %v", part, err)
	}
	if _, err = c.Get(t.Context(), Request{URL: "https://huggingface.co/w.safetensors", Offset: 10, Length: 3}); !errors.As(err, &status) || status.Status != 416 {
		t.Errorf("part beyond the end: %v", err)
	}
}

// TestRecordFillsMirror replays live traffic from what it left.
func TestRecordFillsMirror(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gone":
			w.Header().Set("X-Error-Code", "RepoNotFound")
			http.Error(w, "no", http.StatusNotFound)
		case "/private":
			w.WriteHeader(http.StatusUnauthorized)
		case "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/moved":
			http.Redirect(w, r, "/api/models/a/b", http.StatusFound)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Link", `<https://huggingface.co/next>; rel="next"`)
			if r.Header.Get("Range") != "" {
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
				return
			}
			_ = json.NewEncoder(w).Encode(r.URL.String())
		}
	})
	dir := filepath.Join(t.TempDir(), "mirror")
	live, ck := client(t, srv, func(cfg *Config) { cfg.Record = dir })
	reqs := []Request{
		{URL: "https://huggingface.co/api/models/a/b"},
		{URL: "https://huggingface.co/api/models/a/b/tree/main"}, // its prefix is a file
		{URL: "https://huggingface.co/api/models/a"},             // is a folder
		{URL: "https://huggingface.co/api/models/a/b?blobs=true"},
		{URL: "https://huggingface.co/api/models/A/B"}, // another case
		{URL: "https://huggingface.co/api/models/A/b/tree/main"},
		{URL: "https://huggingface.co/api/models/"},
		{URL: "https://huggingface.co/"},
		{URL: "https://huggingface.co/moved"},
		{URL: "https://huggingface.co/w", Offset: 3, Length: 4},
		{URL: "https://huggingface.co/api/models/a/x.meta.json"},
		{URL: "https://huggingface.co/.git/config"},
		{URL: "https://huggingface.co/" + strings.Repeat("long", 80) + "/x?q=" + strings.Repeat("y", 300)},
		{URL: "https://huggingface.co/gone"},
		{URL: "https://huggingface.co/private"},
	}
	type outcome struct{ body, ctype, link, err string }
	ask := func(c *Client, r Request) outcome {
		res, err := c.Get(t.Context(), r)
		if err != nil {
			var status *StatusError
			if !errors.As(err, &status) {
				return outcome{err: err.Error()}
			}
			return outcome{err: http.StatusText(status.Status) + status.Header.Get("X-Error-Code") + status.Excerpt}
		}
		return outcome{string(res.Body), res.Header.Get("Content-Type"), res.Header.Get("Link"), ""}
	}
	var want []outcome
	for _, r := range reqs {
		want = append(want, ask(live, r))
	}
	_ = ask(live, Request{URL: "https://huggingface.co/busy"})
	// From the cache, into another mirror.
	asked := n.get()
	again := filepath.Join(t.TempDir(), "again")
	warm, err := New(Config{CacheDir: live.cfg.CacheDir, Endpoints: live.cfg.Endpoints, Record: again, Now: ck.Now, Sleep: ck.Sleep})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reqs[:len(reqs)-1] {
		ask(warm, r)
	}
	if n.get() != asked {
		t.Errorf("recording from the cache sent %d requests", n.get()-asked)
	}
	for at, reqs := range map[string][]Request{dir: reqs, again: reqs[:len(reqs)-1]} {
		offline, err := New(Config{Mirror: at})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range reqs {
			if got := ask(offline, r); got != want[i] {
				t.Errorf("%s from the mirror: %+v, live: %+v", r.URL, got, want[i])
			}
		}
		var missing *NotInMirrorError
		if _, err := offline.Get(t.Context(), Request{URL: "https://huggingface.co/busy"}); !errors.As(err, &missing) {
			t.Errorf("a refusal for now was recorded: %v", err)
		}
		checkPortable(t, at)
	}
}

// checkPortable fails where a mirror holds names that differ only in case, or
// files that something left behind.
func checkPortable(t *testing.T, dir string) {
	t.Helper()
	seen := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fold := strings.ToLower(path)
		if was, ok := seen[fold]; ok {
			t.Errorf("%s and %s differ only in case", was, path)
		}
		seen[fold] = path
		if path != dir && strings.HasPrefix(d.Name(), ".") {
			t.Errorf("%s was left behind", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMirrorOnFoldingFileSystem has the check for letter case do its work
// where the file system would not.
func TestMirrorOnFoldingFileSystem(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "huggingface.co/Qwen/Qwen3", "x")
	m, err := openMirror(dir)
	if err != nil {
		t.Fatal(err)
	}
	m.folds = true
	if !m.sameCase("huggingface.co/Qwen/Qwen3") || m.sameCase("huggingface.co/qwen/Qwen3") || m.sameCase("huggingface.co/Qwen/qwen3") {
		t.Error("the spelling on disk is not what counts")
	}
}

func TestConcurrentRecord(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.Path)) })
	dir := t.TempDir()
	paths := []string{"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/A", "/a/B", "/b/", "/b"}
	var wg sync.WaitGroup
	for i := range 16 {
		c, _ := client(t, srv, func(cfg *Config) { cfg.Record = dir })
		wg.Go(func() {
			for k := range paths {
				if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co" + paths[(i+k)%len(paths)]}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	offline, err := New(Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if res, err := offline.Get(t.Context(), Request{URL: "https://huggingface.co" + p}); err != nil || string(res.Body) != p {
			t.Errorf("%s: %v", p, err)
		}
	}
}
