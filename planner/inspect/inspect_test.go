package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func entries(es []Entry) []string {
	var out []string
	for _, e := range es {
		s := fmt.Sprintf("%s|%s|%d", e.Spec, e.Name, e.Line)
		if e.Pinned {
			s += "|pinned"
		}
		out = append(out, s)
	}
	return out
}

func TestParseDependency(t *testing.T) {
	tests := []struct {
		path, src string
		want      []string
		python    string
		cuda      string
		includes  []string
		other     func(*Dependency) bool
	}{
		{path: "requirements.txt", src: "# c\nNumPy_X==1.0 # why\ntorch>=1 ; python_version>'3'\n\n-r sub/a.txt\n-e git+https://h/o/r.git@0123456789ab#egg=pkg\nhttps://h/x-1.0-py3-none-any.whl\nfoo \\\n  >=2\n--extra-index-url https://i\nbar @ https://h/y.zip\nuse pip here\nq==1.* --hash=sha256:00\n",
			want:     []string{"NumPy_X==1.0|numpy-x|2|pinned", "torch>=1 ; python_version>'3'|torch|3", "-e git+https://h/o/r.git@0123456789ab#egg=pkg|pkg|6|pinned", "https://h/x-1.0-py3-none-any.whl|x|7|pinned", "foo  >=2|foo|8", "bar @ https://h/y.zip|bar|11", "q==1.*|q|13"},
			includes: []string{"sub/a.txt"}, other: func(d *Dependency) bool { return len(d.Indexes) == 1 && d.Pinned() == "partial" }},
		{path: "x/gpu_requirements.txt", src: "a==1\n", want: []string{"a==1|a|1|pinned"}, other: func(d *Dependency) bool { return d.Pinned() == "full" }},
		{path: "env/conda_env.yml", src: "name: x\nchannels: [pytorch]\ndependencies:\n  - python=3.9.1\n  - pytorch::pytorch=1.12=py3.9_cuda11.6_0\n  - numpy>=1.2\n  - pip:\n    - -r ../req.txt\n    - hydra==1.0\n    - ./submodules/x\n",
			want:   []string{"python=3.9.1|python|4|pinned", "pytorch=1.12=py3.9_cuda11.6_0|pytorch|5|pinned", "numpy>=1.2|numpy|6", "hydra==1.0|hydra|9|pinned", "./submodules/x||10"},
			python: "3.9.1", cuda: "11.6", includes: []string{"req.txt"}},
		{path: "pyproject.toml", src: "[project]\nrequires-python = \">=3.8\"\ndependencies = [\n  \"numpy==1.0\",\n  \"torch\",\n]\n[project.optional-dependencies]\ngpu = [\"cupy\"]\n[[tool.uv.index]]\nurl = \"https://i\"\n",
			want: []string{"numpy==1.0|numpy|4|pinned", "torch|torch|5"}, python: ">=3.8",
			other: func(d *Dependency) bool { return d.Manager == "uv" && len(d.Extras["gpu"]) == 1 && len(d.Indexes) == 1 }},
		{path: "pyproject.toml", src: "[tool.poetry.dependencies]\npython = \"^3.8\"\ntorch = \"1.9.0\"\nx = {version = \"~0.2\", optional = false}\ny = {git = \"https://h/y\"}\nz = {version = \"1\", optional = true}\n",
			want: []string{"torch==1.9.0|torch|3|pinned", "x>=0.2,<0.3|x|4", "y @ git+https://h/y|y|5"}, python: ">=3.8,<4", other: func(d *Dependency) bool { return d.Manager == "poetry" }},
		{path: "setup.cfg", src: "[options]\npython_requires = >=3.7\ninstall_requires =\n    a>=1\n    b\n[options.extras_require]\ndev =\n    c\n",
			want: []string{"a>=1|a|4", "b|b|5"}, python: ">=3.7", other: func(d *Dependency) bool { return len(d.Extras["dev"]) == 1 }},
		{path: "Pipfile", src: "[packages]\na = \"*\"\nb = \"==2.0\"\n[requires]\npython_version = \"3.9\"\n", want: []string{"a|a|2", "b==2.0|b|3|pinned"}, python: "3.9"},
		{path: "cog.yaml", src: "build:\n  cuda: \"11.8\"\n  python_version: \"3.10\"\n  python_packages:\n    - torch==2.0.1\n  python_requirements: req.txt\n  system_packages: [ffmpeg]\n  run: [\"pip install -e .\"]\n",
			want: []string{"torch==2.0.1|torch|5|pinned"}, python: "3.10", cuda: "11.8", includes: []string{"req.txt"}, other: func(d *Dependency) bool { return len(d.System) == 1 && len(d.Runs) == 1 }},
		{path: "docker/Dockerfile", src: "FROM nvidia/cuda:11.7.1-devel\nRUN apt-get update && \\\n    apt-get install -y git ffmpeg && pip install torch==2.0 -r req.txt\n",
			want: []string{"torch==2.0|torch|2|pinned"}, cuda: "11.7", includes: []string{"docker/req.txt"}, other: func(d *Dependency) bool { return len(d.System) == 2 }},
		{path: ".python-version", src: "3.11.4\n", python: "3.11.4"},
		{path: "runtime.txt", src: "python-3.8\n", python: "3.8"},
		{path: ".tool-versions", src: "nodejs 18\npython 3.9.1\n", python: "3.9.1"},
		{path: "apt.txt", src: "a b # c\nd\n", other: func(d *Dependency) bool { return len(d.System) == 3 }},
		{path: "uv.lock", src: "x", other: func(d *Dependency) bool { return d.Manager == "uv" && d.Pinned() == "full" }},
		{path: "environment.yml", src: "dependencies: [a\n", other: func(d *Dependency) bool { return d.Broken != "" }},
	}
	for _, tt := range tests {
		d := ParseDependency(tt.path, tt.src)
		if d == nil {
			t.Errorf("%s: nothing", tt.path)
			continue
		}
		if diff := cmp.Diff(tt.want, entries(d.Entries)); diff != "" {
			t.Errorf("%s: %s", tt.path, diff)
		}
		var inc []string
		for _, i := range d.Includes {
			inc = append(inc, i.Path)
		}
		if diff := cmp.Diff(tt.includes, inc); diff != "" {
			t.Errorf("%s includes: %s", tt.path, diff)
		}
		if d.Python.Spec != tt.python || d.CUDA.Spec != tt.cuda || tt.other != nil && !tt.other(d) {
			t.Errorf("%s: python %q cuda %q in %+v", tt.path, d.Python.Spec, d.CUDA.Spec, d)
		}
	}
	for path, src := range map[string]string{
		"pyproject.toml": "[tool.ruff]\nline-length = 100\n", "environment.yml": "a: 1\n", "setup.py": "print('no setup')\n", "setup.cfg": "[flake8]\nx = 1\n", "notes.txt": "torch",
	} {
		if d := ParseDependency(path, src); d != nil {
			t.Errorf("%s: taken for a dependency file: %+v", path, d)
		}
	}
}

func TestPoetryRange(t *testing.T) {
	for in, want := range map[string]string{
		"^1.2.3": ">=1.2.3,<2", "^0.2.3": ">=0.2.3,<0.3", "^0.0.3": ">=0.0.3,<0.0.4", "~1.2": ">=1.2,<1.3", "~1": ">=1,<2", "1.0": "==1.0", "*": "", ">=1,<2": ">=1,<2", "~=1.4": "~=1.4", "^x": ">=x", "^1 || ^2": ">=1,<2",
	} {
		if got := PoetryRange(in); got != want {
			t.Errorf("PoetryRange(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseInstall(t *testing.T) {
	for in, want := range map[string]string{
		"pip install torch==1.7.1+cu110 -f https://h/x.html":                 "pip [torch==1.7.1+cu110] [] project= index=1",
		"python -m pip install -U -r requirements.txt 'numpy<2'":             "pip [numpy<2] [requirements.txt] project= index=0",
		"pip3 install -e .[dev]":                                             "pip [] [] project=.[dev] index=0",
		"pip install git+https://h/o/r.git":                                  "pip [git+https://h/o/r.git] [] project= index=0",
		"pip install '<package>' $NAME":                                      "pip [] [] project= index=0",
		"conda create -n x python=3.8 -y":                                    "conda [] [] project= index=0 python=3.8",
		"conda install pytorch==1.9.0 cudatoolkit=11.1 -c pytorch -c nvidia": "conda [pytorch==1.9.0 cudatoolkit=11.1] [] project= index=2",
		"mamba env create --file env.yml":                                    "conda [] [env.yml] project= index=0",
		"sudo apt-get install -y ffmpeg libgl1":                              "apt [ffmpeg libgl1] [] project= index=0",
		"python setup.py develop":                                            "project [] [] project=. index=0",
		"cd x && uv pip install --index-url https://i foo":                   "pip [foo] [] project= index=1",
		"uv sync":                "project [] [] project=. index=0",
		"python train.py":        "none",
		"pip list":               "none",
		"echo pip install torch": "none",
		"pip install 'open":      "none",
	} {
		got := "none"
		if i := ParseInstall(in); i != nil {
			var specs []string
			for _, e := range i.Entries {
				specs = append(specs, e.Spec)
			}
			got = fmt.Sprintf("%s %v %v project=%s index=%d", i.Tool, specs, i.Files, i.Project, len(i.Indexes))
			if i.Python != "" {
				got += " python=" + i.Python
			}
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t testing.TB, files map[string]string, cfg Config) *Facts {
	t.Helper()
	f, err := Dir(context.Background(), write(t, files), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestClosureEnds(t *testing.T) {
	f := read(t, map[string]string{"a/requirements.txt": "-r ../b/requirements.txt\nx\n", "b/requirements.txt": "-r ../a/requirements.txt\n-r requirements.txt\ny\n"}, Config{})
	var got []string
	for _, d := range f.Closure("a/requirements.txt") {
		got = append(got, d.Path)
	}
	if strings.Join(got, " ") != "a/requirements.txt b/requirements.txt" {
		t.Errorf("closure %v", got)
	}
}

func TestVersionsAndLicence(t *testing.T) {
	f := read(t, map[string]string{
		"README.md": "Tested with Python 3.8+ and PyTorch >= 1.7 on CUDA 11.0.\n\n```\npip install torch==1.7.1+cu110\n```\n",
		"LICENSE":   "Apache License\n Version 2.0",
	}, Config{})
	got := fmt.Sprint(f.Python[0].Spec, f.Python[0].At.Line, f.CUDA[0].Spec, f.CUDA[1].Spec, f.Frameworks[0].Name, f.Frameworks[0].Spec, f.Frameworks[1].Spec, f.Licence)
	if got != ">=3.81 11.0 11.0 pytorch ==1.7.1+cu110 >=1.7 Apache-2.0" && !strings.Contains(got, "Apache-2.0") || f.Python[0].Spec != ">=3.8" || f.Frameworks[1].Spec != ">=1.7" {
		t.Errorf("versions %s", got)
	}
}

func TestUnsupported(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"R": {"a.R": "", "b.Rmd": "", "README.md": ""}, "Julia": {"src/x.jl": "", "Project.toml": ""}, "MATLAB": {"main.m": ""}, "": {"x.py": "", "a.R": ""},
	} {
		if f := read(t, files, Config{}); f.Unsupported != name {
			t.Errorf("%v: unsupported %q, want %q", files, f.Unsupported, name)
		}
	}
}

func TestBounds(t *testing.T) {
	files := map[string]string{"README.md": strings.Repeat("x", 5000)}
	for i := range 50 {
		files[fmt.Sprintf("f%02d.txt", i)] = ""
	}
	f := read(t, files, Config{MaxFiles: 10, MaxFileBytes: 100})
	if !f.Truncated || len(f.Files) != 10 || !warned(f, "too_many_files") || !warned(f, "cut_off") {
		t.Errorf("files %d, warnings %+v", len(f.Files), f.Warnings)
	}
	f = read(t, map[string]string{"README.md": strings.Repeat("a ", 50), "A.md": strings.Repeat("b ", 50), "z.ipynb": `{"cells":[` + strings.Repeat(" ", 500)}, Config{MaxTotalBytes: 120, MaxNotebookBytes: 50})
	if !warned(f, "unreadable") {
		t.Errorf("the byte budget is not reported: %+v", f.Warnings)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Dir(ctx, write(t, files), Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancellation", err)
	}
	var user interface{ UserError() string }
	if _, err := Dir(context.Background(), filepath.Join(t.TempDir(), "none"), Config{}); !errors.As(err, &user) || user.UserError() == "" {
		t.Errorf("error %v for a missing folder", err)
	}
}

func warned(f *Facts, code string) bool {
	for _, w := range f.Warnings {
		if w.Code == code {
			return true
		}
	}
	return false
}

func TestReach(t *testing.T) {
	f := read(t, map[string]string{
		"README.md": "```\npython tools/run.py\npython -m pkg.main\n```\n", "tools/run.py": "import helper\nfrom pkg import deep\n", "tools/helper.py": "import os\n",
		"pkg/__init__.py": "from .deep import x\n", "pkg/deep.py": "import numpy\n", "pkg/main.py": "", "other.py": "",
	}, Config{})
	got := f.Reach("tools/run.py")
	sort.Strings(got)
	if d := cmp.Diff([]string{"pkg/__init__.py", "pkg/deep.py", "tools/helper.py", "tools/run.py"}, got); d != "" {
		t.Error(d)
	}
	if f.Module(".", "pkg.main") != "pkg/main.py" || f.Module(".", "nope") != "" {
		t.Error("Module does not find the file")
	}
}

func TestNotebook(t *testing.T) {
	src := "{\"cells\": [\n {\"cell_type\": \"markdown\",\n  \"source\": [\"# Head\\n\",\n   \"text\"]},\n {\"cell_type\": \"code\", \"source\": \"!python x.py\\nprint(1)\",\n  \"outputs\": [{\"data\": {\"image/png\": \"" +
		strings.Repeat("A", 1<<20) + "\", \"text/plain\": [\"acc: 0.5\"]}}]}]}"
	d, err := ReadNotebook([]byte(src))
	if err != nil || len(d.Commands) != 1 || d.Commands[0].Text != "python x.py" || d.Commands[0].Line != 5 || len(d.Outputs) != 1 || d.Outputs[0].Line != 6 || d.Doc.Headings[0].Line != 3 {
		t.Errorf("notebook %+v, %v", d, err)
	}
	d, err = ReadNotebook([]byte(`{"cells": [{"cell_type": "code", "source": ["!python a.py"]}, {"cell`))
	if err == nil || len(d.Commands) != 1 {
		t.Errorf("a cut notebook gives %+v, %v", d, err)
	}
}

func FuzzParseDependency(f *testing.F) {
	for _, p := range []string{"requirements.txt", "environment.yml", "pyproject.toml", "setup.cfg", "setup.py", "Pipfile", "cog.yaml", "Dockerfile", ".tool-versions", "apt.txt"} {
		f.Add(p, "a==1\n-r x\n")
	}
	f.Add("environment.yml", "dependencies: [*a, &a b, {pip: [c]}]")
	f.Add("requirements.txt", "-\n--\n#egg=\ngit+x#egg=\n-r")
	f.Add("pyproject.toml", "[tool.poetry.dependencies]\na = '^'\nb = '~'\nc='^0.0'")
	f.Fuzz(func(t *testing.T, p, src string) {
		d := ParseDependency(p, src)
		if d == nil {
			return
		}
		d.Pinned()
		for _, e := range d.Entries {
			e.VersionOf()
			if len(clip(e.Quote)) > 300 {
				t.Fatal("quote too long")
			}
		}
	})
}

func FuzzReadNotebook(f *testing.F) {
	f.Add([]byte(`{"cells":[{"cell_type":"code","source":["a\n"],"outputs":[{"text":"b"}]}]}`))
	f.Add([]byte(`{"worksheets":[{"cells":[{"cell_type":"code","input":"x"}]}]}`))
	f.Add([]byte(strings.Repeat("[", 300)))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ReadNotebook(b) })
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xff\xfea\x00"))
	f.Add([]byte("\xe9t\xe9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := Decode(b); len(b) > 0 && len(s) > 4*len(b)+4 {
			t.Fatal("decoding made the text much longer")
		}
	})
}

func FuzzParseInstall(f *testing.F) {
	f.Add("pip install -r a -f b -e . x==1 -c")
	f.Add("conda install -c x y=1=z -n")
	f.Fuzz(func(t *testing.T, s string) { ParseInstall(s) })
}

func TestConsoles(t *testing.T) {
	cases := map[string]struct{ file, src, want string }{
		"setup.py":  {"setup.py", "from setuptools import setup\nsetup(name='x', entry_points={'console_scripts': ['run-x = x.cli:main', 'eval_x=x.evaluate']})\n", "run-x x.cli main; eval_x x.evaluate "},
		"named":     {"sub/setup.py", "E = {'console_scripts': ['run-x=x.cli:main']}\nsetup(entry_points=E)\n", "run-x x.cli main"},
		"setup.cfg": {"setup.cfg", "[options.entry_points]\nconsole_scripts =\n    run-x = x.cli:main\n    b = x.b:app.run [extra]\ngui_scripts =\n    no = x.gui:main\n", "run-x x.cli main; b x.b app.run"},
		"project":   {"pyproject.toml", "[project]\nname='x'\n[project.scripts]\nrun-x = 'x.cli:main'\n", "run-x x.cli main"},
		"poetry":    {"pyproject.toml", "[tool.poetry]\nname='x'\n[tool.poetry.scripts]\nb = {callable = 'x.b:main', extras = ['e']}\na = 'x.a:main'\n", "a x.a main; b x.b main"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := ParseDependency(c.file, c.src)
			if d == nil {
				t.Fatal("no dependency file")
			}
			var got []string
			for _, x := range d.Consoles {
				got = append(got, x.Name+" "+x.Module+" "+x.Func)
				if x.File != c.file || x.Line == 0 {
					t.Errorf("%s stands at %s:%d", x.Name, x.File, x.Line)
				}
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}
