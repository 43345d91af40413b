package pip_test

import (
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner/pip"
)

func version(t *testing.T, s string) pip.Version {
	v, ok := pip.ParseVersion(s)
	if !ok {
		t.Fatalf("%q is no version", s)
	}
	return v
}

// TestOrder has the order of PEP 440's own summary.
func TestOrder(t *testing.T) {
	list := strings.Fields("1.dev0 1.0.dev456 1.0a1 1.0a2.dev456 1.0a12.dev456 1.0a12 1.0b1.dev456 1.0b2 1.0b2.post345.dev456 1.0b2.post345 1.0rc1.dev456 1.0rc1 1.0 1.0.post456.dev34 1.0.post456 1.1.dev1 1.1 1.10 2!0.1")
	for i := 1; i < len(list); i++ {
		if list[i-1] == "1.dev0" {
			continue // the same release as the next
		}
		if version(t, list[i-1]).Compare(version(t, list[i])) >= 0 {
			t.Errorf("%s is not before %s", list[i-1], list[i])
		}
	}
	if version(t, "1.0").Compare(version(t, "v1.0.0+cu118")) != 0 {
		t.Error("1.0 is not 1.0.0+cu118")
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		clauses, version string
		want, ok         bool
	}{
		{">=1.2,<2", "1.5", true, true}, {">=1.2,<2", "2.0", false, true}, {"==1.2.*", "1.2.9", true, true}, {"==1.2.*", "1.3", false, true},
		{"~=1.4.2", "1.4.9", true, true}, {"~=1.4.2", "1.5", false, true}, {"~=1.4", "1.9", true, true}, {"!=1.0", "1.0.0", false, true},
		{"", "1", true, true}, {"nonsense", "1", false, false}, {"==1.2", "1.2.0", true, true}, {">1", "1", false, true}, {"<=1", "1", true, true},
	} {
		got, ok := pip.Allows(c.clauses, version(t, c.version))
		if got != c.want || ok != c.ok {
			t.Errorf("%s %s: %v %v", c.clauses, c.version, got, ok)
		}
	}
}

func TestReleases(t *testing.T) {
	const page = `{"files":[
{"filename":"tiny_pkg-1.0-cp39-cp39-manylinux2014_x86_64.whl","upload-time":"2020-01-01T00:00:00Z","requires-python":">=3.6"},
{"filename":"tiny-pkg-1.0.tar.gz","upload-time":"2020-01-02T00:00:00Z","yanked":false},
{"filename":"tiny_pkg-1.1-py3-none-any.whl","upload-time":"2021-01-01T00:00:00.123Z","yanked":"broken"},
{"filename":"tiny_pkg-1.2-py3-none-any.whl","upload-time":"2022-01-01T00:00:00Z"},
{"filename":"tiny_pkg-2.0rc1-py3-none-any.whl"},{"filename":"other.exe"},{"filename":"tiny-pkg-0.9.zip"}]}`
	list, err := pip.ParseReleases("Tiny.Pkg", "application/vnd.pypi.simple.v1+json", []byte(page))
	if err != nil || len(list) != 5 || list[1].Version.Text != "1.0" || len(list[1].Wheels) != 1 || !list[1].Sdist || !list[2].Yanked || list[1].Uploaded.Year() != 2020 {
		t.Fatalf("%+v, %v", list, err)
	}
	near := func(to string, newest *time.Time) (out string) {
		for _, r := range pip.Nearest(list, version(t, to), newest) {
			out += r.Version.Text + " "
		}
		return out
	}
	bound := time.Date(2021, 6, 1, 0, 0, 0, 0, time.UTC)
	for got, want := range map[string]string{
		near("1.1", nil): "1.2 1.0 0.9 ", near("1.1", &bound): "1.0 0.9 ", near("0.1", nil): "0.9 1.0 1.2 ", near("9", nil): "1.2 1.0 0.9 ",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	html, err := pip.ParseReleases("tiny-pkg", "text/html", []byte(`<a href="../../tiny_pkg-1.0-py3-none-any.whl#sha256=x" data-requires-python="&gt;=3.6">x</a><a data-yanked href="/tiny-pkg-1.1.tar.gz">`))
	if err != nil || len(html) != 2 || html[0].Python != ">=3.6" || !html[1].Yanked {
		t.Errorf("%+v, %v", html, err)
	}
}

func TestRuns(t *testing.T) {
	for wheel, want := range map[string]bool{
		"a-1-py3-none-any.whl": true, "a-1-py2.py3-none-any.whl": true, "a-1-py2-none-any.whl": false,
		"a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": true, "a-1-cp310-cp310-manylinux2014_x86_64.whl": false,
		"a-1-cp37-abi3-manylinux2014_x86_64.whl": true, "a-1-cp312-abi3-manylinux2014_x86_64.whl": false,
		"a-1-cp311-cp311-win_amd64.whl": false, "a-1-cp311-cp311-manylinux2014_aarch64.whl": false, "a-1-cp311-cp311-musllinux_1_1_x86_64.whl": false,
		"a-1-cp311-cp311t-manylinux2014_x86_64.whl": false, "bad.whl": false, "a-1-1-py3-none-linux_x86_64.whl": true,
	} {
		if got := pip.Runs(wheel, 11, "x86_64"); got != want {
			t.Errorf("%s: %v", wheel, got)
		}
	}
}

func TestPin(t *testing.T) {
	for s, want := range map[string]string{
		"Torch == 1.10.1+cu113 ; python_version < '4'": "torch 1.10.1+cu113", "a[b,c]==1": "a 1", "a>=1": "", "a==1.*": "", "a": "", "a==1,!=2": "",
	} {
		n, v, ok := pip.Pin(s)
		if got := strings.TrimSpace(n + " " + v); got != want || ok != (want != "") {
			t.Errorf("%s: %q", s, got)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"1.0", "1!2.3rc1.post4.dev5+local.1", "v1-1", "1.0.dev"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := pip.ParseVersion(s)
		if ok && v.Compare(v) != 0 {
			t.Errorf("%q is not itself", s)
		}
	})
}

func FuzzParseReleases(f *testing.F) {
	f.Add("a", "json", []byte(`{"files":[{"filename":"a-1-py3-none-any.whl"}]}`))
	f.Add("a", "text/html", []byte(`<a href="a-1.tar.gz">`))
	f.Fuzz(func(t *testing.T, name, kind string, body []byte) {
		list, err := pip.ParseReleases(name, kind, body)
		if err == nil && len(list) > 1 && list[0].Version.Compare(list[1].Version) > 0 {
			t.Error("not in order")
		}
	})
}
