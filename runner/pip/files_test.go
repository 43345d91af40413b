package pip_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

func fsys(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for k, v := range files {
		m[k] = &fstest.MapFile{Data: []byte(v)}
	}
	return m
}

func env(reqs ...string) (e spec.Environment) {
	for _, r := range reqs {
		e.Requirements = append(e.Requirements, spec.Requirement{Spec: r})
	}
	return e
}

func show(lines []pip.Line) string {
	var out []string
	for _, l := range lines {
		edit := ""
		if l.Edit {
			edit = "edit "
		}
		out = append(out, fmt.Sprintf("%s%s <%s> %s", edit, l.Text, l.Name, l.Where()))
	}
	return strings.Join(out, "\n")
}

func TestRead(t *testing.T) {
	files := map[string]string{
		"requirements.txt": "\xef\xbb\xbf# comment\n--index-url https://evil.example/simple\n-i https://evil.example\nNumPy==1.21 \\\n   --hash=sha256:abc \\\n   --hash=sha256:def\n" +
			"scipy>=1.7 ; python_version < '3.12'  # why\n-rsub/more.txt\n-c constraints.txt\n--pre\n-e .\n./lib\n" +
			"certifi @ file:///croot/certifi_1671487769961/work/certifi\npandas=1.3.4=py39_0\ntorch==1.10.1+cu113\ngit+https://github.com/openai/CLIP.git@abc#egg=clip\nname @ git+https://x/y\n",
		"sub/more.txt":    "requests\n-r ../requirements.txt\n-e ../lib[extra]\n",
		"constraints.txt": "urllib3<2\n",
		"pyproject.toml":  "", "lib/setup.py": "", "lib/pkg/__init__.py": "", "lib/ext.c": "int x;",
		"utf16.txt": "\xff\xfen\x00u\x00m\x00p\x00y\x00=\x00=\x001\x00\r\x00\n\x00",
	}
	in, err := pip.Read(fsys(files), env("-r requirements.txt", "Pillow", "-e .", "-r utf16.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := `NumPy==1.21 <numpy> requirements.txt:4
scipy>=1.7 ; python_version < '3.12' <scipy> requirements.txt:7
requests <requests> sub/more.txt:1
edit lib[extra] <> sub/more.txt:3
edit . <> requirements.txt:11
edit lib <> requirements.txt:12
certifi <certifi> requirements.txt:13
pandas==1.3.4 <pandas> requirements.txt:14
torch==1.10.1+cu113 <torch> requirements.txt:15
git+https://github.com/openai/CLIP.git@abc#egg=clip <> requirements.txt:16
name @ git+https://x/y <name> requirements.txt:17
Pillow <pillow> the plan
edit . <> the plan
numpy==1 <numpy> utf16.txt:1`
	if got := show(in.Lines); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := show(in.Constraints); got != "urllib3<2 <urllib3> constraints.txt:1" || !in.Pre || len(in.Deviations) != 2 {
		t.Errorf("%s, %v, %+v", got, in.Pre, in.Deviations)
	}
	for _, f := range []string{"lib/ext.c", "lib/packages/", "pyproject.toml"} {
		if in.Files[f] == "" {
			t.Errorf("%s is not part of the key: %v", f, in.Files)
		}
	}
}

func TestConda(t *testing.T) {
	const yml = `name: paper
channels: [pytorch, conda-forge]
dependencies:
  - python=3.8.5
  - numpy=1.21
  - pandas=1.3.4=py38h8c16a72_0
  - conda-forge::scikit-learn>=0.24,<1.1
  - pytorch==1.10.1
  - cudatoolkit=11.3
  - libgcc-ng=9.1.0
  - tqdm
  - odd=1.7|1.8
  - pip
  - pip:
    - einops==0.4.1
    - -r more.txt
    - -e .
`
	in, err := pip.Read(fsys(map[string]string{"env/environment.yml": yml, "env/more.txt": "wandb\n", "setup.py": ""}), env("-f env/environment.yml"))
	if err != nil {
		t.Fatal(err)
	}
	want := `einops==0.4.1 <einops> env/environment.yml:15
wandb <wandb> env/more.txt:1
edit . <> env/environment.yml:17`
	if got := show(in.Lines); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `numpy==1.21.* <numpy> env/environment.yml:5
pandas==1.3.4 <pandas> env/environment.yml:6
scikit-learn>=0.24,<1.1 <scikit-learn> env/environment.yml:7
torch==1.10.1 <torch> env/environment.yml:8
tqdm <tqdm> env/environment.yml:11
odd <odd> env/environment.yml:12`
	if got := show(in.Conda.Packages); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if d := in.Conda.AsPackages("why"); !strings.Contains(d.Used, "without cudatoolkit, libgcc-ng") || len(in.Deviations) != 0 {
		t.Errorf("%+v", d)
	}
	want = "python=3.8.5 numpy=1.21 pandas=1.3.4 conda-forge::scikit-learn>=0.24,<1.1 pytorch==1.10.1 cudatoolkit=11.3 libgcc-ng=9.1.0 tqdm odd=1.7|1.8 pip"
	var specs []string
	for _, l := range in.Conda.Specs {
		specs = append(specs, pip.WithoutBuild(l.Text))
	}
	if got := strings.Join(specs, " "); got != want || !in.Conda.HasBuilds() || strings.Join(in.Conda.Channels, " ") != "pytorch conda-forge" {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, bad := range []string{"dependencies: 3", "dependencies: [[a]]", "\t"} {
		if _, err := pip.Read(fsys(map[string]string{"e.yml": bad}), env("-f e.yml")); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestPlaces: a requirement that a document states is told with its place.
func TestPlaces(t *testing.T) {
	e := env("numpy==1.15.4", "six")
	e.Requirements[0].Evidence = []spec.Evidence{{File: "README.md", Line: 53}}
	in, err := pip.Read(fsys(nil), e)
	if want := "numpy==1.15.4 <numpy> README.md:53\nsix <six> the plan"; err != nil || show(in.Lines) != want {
		t.Errorf("%v, got\n%s", err, show(in.Lines))
	}
}

func FuzzConda(f *testing.F) {
	f.Add("dependencies:\n  - numpy=1.2\n  - pip:\n    - x==1\n")
	f.Add("dependencies: [a=1=b, '::', {pip: [-e .]}]")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := pip.Read(fsys(map[string]string{"e.yml": s, "setup.py": ""}), env("-f e.yml"))
		if err != nil {
			return
		}
		for _, l := range slices.Concat(in.Lines, in.Conda.Specs, in.Conda.Packages) {
			if l.Text == "" || strings.Contains(l.Text, "\n") {
				t.Errorf("%q", l.Text)
			}
		}
	})
}

func TestReadRefuses(t *testing.T) {
	files := map[string]string{"a.txt": "-r ../../etc/passwd\n", "e.txt": "-e ./nothing\n", "big.txt": strings.Repeat("x", 5<<20), "m.txt": "-r gone.txt"}
	for req, want := range map[string]string{
		"-r a.txt": "leaves the checkout", "-r none.txt": "none.txt: there is no such file", "-e sub": "is no project",
		"-r e.txt": "e.txt:1", "-r big.txt": "larger than", "-r m.txt": "gone.txt", "--index-url x": "not allowed",
	} {
		_, err := pip.Read(fsys(files), env(req))
		var unreadable *pip.UnreadableError
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", req, err, want)
		}
	}
}

func TestLocks(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"uv.lock": {`version = 1
[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://pypi.org/simple" }
resolution-markers = ["python_full_version < '3.10'", "python_full_version == '3.10.*'"]
[[package]]
name = "numpy"
version = "2.2.0"
resolution-markers = ["python_full_version >= '3.11'"]
[[package]]
name = "me"
version = "0.1"
source = { editable = "." }
[[package]]
name = "clip"
version = "1.0"
source = { git = "https://github.com/openai/CLIP?rev=abc#abcdef" }
`, `numpy==1.26.4 ; (python_full_version < '3.10') or (python_full_version == '3.10.*') <numpy> uv.lock:3
numpy==2.2.0 ; (python_full_version >= '3.11') <numpy> uv.lock:3`},
		"poetry.lock": {"[[package]]\nname = \"Flask_X\"\nversion = \"2.0\"\noptional = false\n[[package]]\nname=\"g\"\nversion=\"1\"\n[package.source]\ntype=\"git\"\n", "flask-x==2.0 <flask-x> poetry.lock:2"},
		"pdm.lock":    {"[[package]]\nname = \"a\"\nversion = \"1\"\nmarker = \"sys_platform == 'win32'\"\n[[package]]\nname = \"b\"\nversion = \"1\"\n[[package]]\nname = \"b\"\nversion = \"2\"\n", "a==1 ; sys_platform == 'win32' <a> pdm.lock:2"},
		"Pipfile.lock": {`{"_meta": {}, "default": {
  "requests": {
    "hashes": ["sha256:x"], "version": "==2.31.0", "markers": "python_version >= '3.7'"},
  "six": {
    "version": "==1.16.0"}, "local": {"path": "."}}, "develop": {"pytest": {"version": "==8"}}}`, "requests==2.31.0 ; python_version >= '3.7' <requests> Pipfile.lock:2\nsix==1.16.0 <six> Pipfile.lock:4"},
		"pylock.toml": {"lock-version = \"1.0\"\n[[packages]]\nname = \"attrs\"\nversion = \"25.1.0\"\n", "attrs==25.1.0 <attrs> pylock.toml:3"},
	} {
		e := env()
		e.DependencySources = []spec.DependencyFile{{Path: name, Role: "primary"}, {Path: "poetry.lock", Role: "ignored"}}
		in, err := pip.Read(fsys(map[string]string{name: c.body}), e)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := show(in.Locked); got != c.want || show(in.Lines) != c.want || in.LockFile != name {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
	if _, err := pip.ParseLock("uv.lock", []byte("[[")); err == nil {
		t.Error("a broken lock was read")
	}
}

func FuzzRead(f *testing.F) {
	f.Add("numpy==1\n-r b.txt\n-e .\n", "a @ file:///x\n\\\n")
	f.Add("--index-url=x\n[\n=1\nx=1=2", "-r a.txt")
	f.Fuzz(func(t *testing.T, a, b string) {
		in, err := pip.Read(fsys(map[string]string{"a.txt": a, "b.txt": b, "setup.py": ""}), env("-r a.txt"))
		if err != nil {
			return
		}
		for _, l := range append(in.Lines, in.Constraints...) {
			if strings.ContainsAny(l.Text, "\n") || l.Text == "" || strings.HasPrefix(l.Text, "-") && !l.Edit {
				t.Errorf("%q", l.Text)
			}
		}
	})
}

func FuzzParseLock(f *testing.F) {
	f.Add("uv.lock", []byte("[[package]]\nname = \"a\"\nversion = \"1\"\n"))
	f.Add("Pipfile.lock", []byte(`{"default":{"a":{"version":"==1"}}}`))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		lines, err := pip.ParseLock(name, b)
		if err != nil {
			return
		}
		for _, l := range lines {
			if strings.Contains(l.Text, "\n") || !strings.Contains(l.Text, "==") {
				t.Errorf("%q", l.Text)
			}
		}
	})
}
