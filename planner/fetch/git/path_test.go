package git

import (
	"bytes"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

func TestUnsafeName(t *testing.T) {
	for name, want := range map[string]string{
		"a": "", "a.py": "", ".gitignore": "", ".gitmodules": "", ".github": "", ".gitattributes": "", "git": "", "git~": "", "git~a": "",
		"x.git": "", "...a": "", "a b": "", "日本語.txt": "", "a:b": "", "CONSOLE.txt": "", "COM10": "", "nulls": "", "aux_data": "", "-rf": "",
		"~": "", "$HOME": "", strings.Repeat("n", 255): "", "com0": "", "LPT.txt": "",
		"": "empty", ".": "name is", "..": "name is", "a/b": "separator", "a\\b": "separator", "a\x00b": "control", "a\nb": "control",
		"a\x7f": "control", "\xff": "UTF-8", strings.Repeat("n", 256): "255",
		".git": ".git", ".GIT": ".git", ".Git": ".git", ".git.": ".git", ".git ": ".git", ".git . .": ".git", ".git:": ".git", ".git::$DATA": ".git",
		".git:stream:$DATA": ".git", "git~1": ".git", "GIT~1": ".git", "git~25": ".git", "git~1.": ".git", ".g\u200cit": ".git",
		"\ufeff.git": ".git", ".gi\u202et": ".git", "...": ".git", " ": ".git", ". .": ".git", "\u200d": ".git",
		"x::$INDEX_ALLOCATION": "stream", "f.txt::$DATA": "stream",
		"con": "device", "CON.txt": "device", "nul": "device", "Aux.py": "device", "com1": "device", "LPT9.log": "device", "COM¹": "device",
		"CONIN$": "device", "prn ": "device", "nul:x": "device",
	} {
		got := unsafeName(name)
		if want == "" && got != "" || want != "" && !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestUnsafePath(t *testing.T) {
	for p, ok := range map[string]bool{
		"a/b/c": true, "a": true, strings.Repeat("d/", 127) + "f": true,
		"": false, "/a": false, "a/": false, "a//b": false, "a/../b": false, "./a": false, "a/.git/config": false,
		strings.Repeat("d/", 128) + "f":                        false,
		strings.Repeat(strings.Repeat("x", 200)+"/", 25) + "f": false,
	} {
		if why := unsafePath(p); (why == "") != ok {
			t.Errorf("%.40q: %q", p, why)
		}
	}
}

// A path that is accepted stays below its root in every reading of it.
func FuzzUnsafePath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", ".git/config", "a/.GIT", "git~1", "a\\..\\b", "c:x", ".g\u200cit", "a/./b", "nul", "x::$DATA", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if unsafePath(p) != "" {
			return
		}
		if !filepath.IsLocal(p) || path.Clean(p) != p {
			t.Errorf("%q is accepted and not local", p)
		}
		for name := range strings.SplitSeq(p, "/") {
			low := strings.ToLower(strings.TrimRight(name, " ."))
			if low == ".git" || low == "git~1" || low == "" || len(name) > 255 {
				t.Errorf("%q is accepted in %q", name, p)
			}
		}
		if windows := strings.ReplaceAll(p, "/", "\\"); strings.Contains(windows, "\\..\\") {
			t.Errorf("%q climbs", p)
		}
	})
}

func TestModuleURLs(t *testing.T) {
	got := moduleURLs([]byte(modules("a", "a", "https://x/a", "b", "d/b", "../b", "out", "../out", "https://x", "git", ".git/modules/x", "https://x",
		"one", "twice", "https://x/1", "two", "twice", "https://x/2") + "[submodule \"nourl\"]\n\tpath = nourl\n[core]\n\tsshCommand = evil\n"))
	want := map[string]string{"a": "https://x/a", "d/b": "../b"}
	if len(got) != len(want) || got["a"] != want["a"] || got["d/b"] != want["d/b"] {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, bad := range []string{"", "[", "[submodule \"x\"\npath=", "\xff\xfe", "path = x"} {
		if got := moduleURLs([]byte(bad)); len(got) != 0 {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add([]byte(modules("a", "a", "https://x/a", "b", "b", "../b")))
	f.Add([]byte("[submodule \"a\"]\npath=a\\\nurl = \"x;#\"\n"))
	f.Add([]byte("[submodule \"0\"]\npath=0\nurl=https:"))
	f.Add([]byte("[submodule \"..\"]\npath=../x\nurl=ext::sh -c x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for p, u := range moduleURLs(b) {
			if unsafePath(p) != "" {
				t.Errorf("path %q", p)
			}
			if abs, refused := submoduleURL("https://github.com/own/proj", u); refused == "" && !strings.HasPrefix(abs, "https://") {
				t.Errorf("url %q became %q", u, abs)
			}
		}
	})
}

func TestParsePointer(t *testing.T) {
	oid := strings.Repeat("0a", 32)
	good := "version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 12\n"
	for text, ok := range map[string]bool{
		good: true,
		"version https://git-lfs.github.com/spec/v1\next-0-foo sha256:" + oid + "\noid sha256:" + oid + "\nsize 0\n": true,
		"": false, "version https://git-lfs.github.com/spec/v1\n": false, good[1:]: false,
		strings.Replace(good, "size 12", "size -1", 1):   false,
		strings.Replace(good, "size 12", "size x", 1):    false,
		strings.Replace(good, "sha256:0a", "sha1:0a", 1): false,
		good + strings.Repeat("x", 1000):                 false,
	} {
		p, got := parsePointer([]byte(text), int64(len(text)))
		if got != ok || ok && p.OID != oid {
			t.Errorf("%.60q: %+v %v", text, p, got)
		}
	}
}

func FuzzParsePointer(f *testing.F) {
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0a", 32) + "\nsize 12\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parsePointer(b, int64(len(b))); ok && (len(p.OID) != 64 || p.Size < 0 || len(b) >= 1024) {
			t.Errorf("%q gave %+v", b, p)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add("100644 5 " + strings.Repeat("0a", 20) + " \"a/b.txt\"\n")
	f.Add("100755 0 " + strings.Repeat("ff", 20) + " \"\\u65e5\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		files, err := readManifest([]byte(s))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeManifest(&out, files); err != nil {
			t.Fatal(err)
		}
		again, err := readManifest(out.Bytes())
		if err != nil || !slices.Equal(again, files) {
			t.Errorf("%q does not survive: %v", s, err)
		}
	})
}

func FuzzRef(f *testing.F) {
	for _, s := range []string{"main", "v1.0", "refs/heads/x", "../x", "a..b", "@{u}", "HEAD~1", "-x", "deadbeef", "a.lock"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		if malformedRef(ref) != "" {
			return
		}
		for _, full := range refNames(ref) {
			if strings.Contains(full, "..") || strings.ContainsAny(full, "\x00\n \\") || len(full) > 300 {
				t.Errorf("%q is accepted as %q", ref, full)
			}
		}
		if isCommitID(ref) && plumbing.NewHash(ref).IsZero() && strings.Trim(ref, "0") != "" {
			t.Errorf("%q is not an id", ref)
		}
	})
}
