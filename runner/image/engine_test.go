package image_test

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/image"
	"github.com/repromill/repromill/runner/image/tool"
	"github.com/repromill/repromill/runner/pip"
)

// tools is a folder for the programs that builds need, fetched once.
var tools string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__container" {
		os.Exit(supervisor.Main())
	}
	var err error
	if tools, err = os.MkdirTemp("", "repromill-tools-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(tools)
	os.Exit(code)
}

// uv is the program, from the index that the environment names.
func uv(t testing.TB) string {
	t.Helper()
	index, _ := pip.Indexes(strings.Fields(os.Getenv("PIP_INDEX_URL")))
	path, err := tool.UV(t.Context(), tool.Config{Dir: tools, Index: index[0]})
	must(t, err)
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// builder is one with a real engine; the test is skipped without one.
func builder(t testing.TB, change func(*image.Config)) *image.Builder {
	t.Helper()
	base := os.Getenv("REPROMILL_TEST_DOCKER_BASE")
	if base == "" {
		t.Skip("REPROMILL_TEST_DOCKER_BASE names no base image for a Docker engine")
	}
	e, err := engine.Open(t.Context(), engine.Config{Getenv: os.Getenv})
	if err != nil {
		t.Skip("no Docker engine answers: ", err)
	}
	t.Cleanup(func() { e.Close() })
	if _, ok := t.(*testing.T); ok {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	}
	cfg := image.Config{
		Dir: filepath.Join(t.TempDir(), "images"), Engine: e, Bases: []string{base}, Interpreters: []string{"base"}, UV: uv(t),
		Index:    image.Index{URL: os.Getenv("PIP_INDEX_URL"), CABundle: os.Getenv("PIP_CERT")},
		Progress: func(e image.Event) { t.Logf("%s %s", e.Stage, e.Text) },
	}
	if confined() {
		cfg.Program, cfg.ProgramArgs = os.Args[0], []string{"__container"}
	}
	if change != nil {
		change(&cfg)
	}
	b, err := image.New(cfg)
	must(t, err)
	return b
}

// confined says that builds have our supervisor, which needs a static program:
// this one is when it was built with CGO_ENABLED=0.
func confined() bool {
	f, err := elf.Open(os.Args[0])
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func checkout(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(body), 0o644))
	}
	return dir
}

func wants(reqs ...string) (e spec.Environment) {
	for _, r := range reqs {
		e.Requirements = append(e.Requirements, spec.Requirement{Spec: r})
	}
	return e
}

// runIn runs a command in an image and returns what it printed.
func runIn(t testing.TB, ref string, argv ...string) (string, int) {
	t.Helper()
	ctx := context.Background()
	e, err := engine.Open(ctx, engine.Config{Getenv: os.Getenv})
	must(t, err)
	defer e.Close()
	id, err := e.Create(ctx, engine.Container{Image: ref, Entrypoint: argv, Network: "none", Labels: map[string]string{image.LabelBuild: "test"}})
	must(t, err)
	defer func() { must(t, e.Remove(ctx, id)) }()
	must(t, e.Start(ctx, id))
	code, err := e.Wait(ctx, id)
	must(t, err)
	var out bytes.Buffer
	must(t, e.Logs(ctx, id, false, &out, &out))
	return out.String(), code
}

func remove(t testing.TB, ref string) {
	t.Cleanup(func() {
		e, err := engine.Open(context.Background(), engine.Config{Getenv: os.Getenv})
		must(t, err)
		defer e.Close()
		must(t, e.RemoveImage(context.Background(), ref))
	})
}

// TestNumpyPaper goes the whole way: build, append, load, run; then a new
// commit, which costs an append.
func TestNumpyPaper(t *testing.T) {
	b := builder(t, nil)
	ctx := context.Background()
	dir := checkout(t, map[string]string{"main.py": "import numpy; print('numpy', numpy.__version__)\n", "requirements.txt": "numpy==1.26.4\n"})
	req := image.EnvRequest{Environment: wants("-r requirements.txt"), Source: dir}
	env, err := b.Environment(ctx, req)
	must(t, err)
	if env.Failure != nil || env.Reused || !strings.Contains(env.Lock, "numpy==1.26.4 \\\n    --hash=sha256:") || !strings.HasPrefix(env.Python, "3.11.") {
		log, _ := os.ReadFile(env.Log)
		t.Fatalf("%+v\n%s", env, log)
	}
	img, err := b.WithSource(ctx, env, image.SourceRequest{Dir: dir, Commit: "1", Time: time.Unix(1.6e9, 0)})
	must(t, err)
	ref, err := b.Load(ctx, img.Image, "repromill/test:numpy")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "main.py"); out != "numpy 1.26.4\n" || code != 0 {
		t.Errorf("%d %q", code, out)
	}

	must(t, os.WriteFile(filepath.Join(dir, "main.py"), []byte("import numpy; print('second')\n"), 0o644))
	start := time.Now()
	again, err := b.Environment(ctx, req)
	must(t, err)
	if !again.Reused || again.Digest != env.Digest || again.Lock != env.Lock {
		t.Errorf("%+v", again)
	}
	img, err = b.WithSource(ctx, again, image.SourceRequest{Dir: dir, Commit: "2", Time: time.Unix(1.7e9, 0)})
	must(t, err)
	ready := time.Since(start)
	ref, err = b.Load(ctx, img.Image, "repromill/test:numpy2")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "main.py"); out != "second\n" || code != 0 {
		t.Errorf("%d %q", code, out)
	}
	t.Logf("a new commit took %s, and %s with loading", ready, time.Since(start))
}

// TestRepairs installs what cannot be installed as written.
func TestRepairs(t *testing.T) {
	b := builder(t, nil)
	dir := checkout(t, map[string]string{"requirements.txt": `# frozen on Ubuntu, Python 3.7
certifi @ file:///croot/certifi_1671487769961/work/certifi
numpy==1.17.3
pkg-resources==0.0.0
PyYAML==5.4
six==1.99
`})
	env, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("-r requirements.txt"), Source: dir})
	must(t, err)
	log, _ := os.ReadFile(env.Log)
	if env.Failure != nil {
		t.Fatalf("%s\n%s", env.Failure, log)
	}
	for _, d := range env.Deviations {
		t.Logf("%s: %s -> %s (%s)", d.What, d.Declared, d.Used, d.Reason)
	}
	for _, l := range strings.Split(env.Lock, "\n") {
		if strings.Contains(l, "==") {
			t.Log(l)
		}
	}
}

// TestPythonThatIsNotThere takes the base's Python and says so.
func TestPythonThatIsNotThere(t *testing.T) {
	b := builder(t, func(c *image.Config) { c.Interpreters = nil })
	for _, want := range []string{"3.7", "3.5.2", "2.7"} {
		req := image.EnvRequest{Environment: wants("six"), Source: t.TempDir()}
		req.Environment.Python.Version = want
		env, err := b.Environment(context.Background(), req)
		must(t, err)
		if env.Failure != nil || len(env.Deviations) != 1 || env.Deviations[0].Declared != want || env.Deviations[0].Used != "3.11" || !strings.HasPrefix(env.Python, "3.11.") {
			log, _ := os.ReadFile(env.Log)
			t.Errorf("%s: %s %+v\n%s", want, env.Failure, env.Deviations, log)
		}
	}
}

// TestLibrariesOfTheSystem imports a package whose extension needs a library
// that minimal images lack.
func TestLibrariesOfTheSystem(t *testing.T) {
	b := builder(t, nil)
	env, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("opencv-python==4.9.0.80", "numpy==1.26.4"), Source: t.TempDir()})
	must(t, err)
	if env.Failure != nil || !slices.Contains(env.System, "libgl1") {
		t.Fatalf("%s %+v", env.Failure, env.Deviations)
	}
	ref, err := b.Load(context.Background(), env.Image, "repromill/test:cv2")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "-c", "import cv2; print(cv2.__version__)"); code != 0 || out != "4.9.0\n" {
		t.Errorf("%d %s", code, out)
	}
	_, err = b.Prune(context.Background(), 0)
	must(t, err)
}

// TestExtensionOfTheCheckout installs a project in place that is compiled: the
// compiler is not in the image, what it made is.
func TestExtensionOfTheCheckout(t *testing.T) {
	b := builder(t, nil)
	dir := checkout(t, map[string]string{
		"pyproject.toml":   "[build-system]\nrequires = [\"setuptools==75.8.0\"]\nbuild-backend = \"setuptools.build_meta\"\n[project]\nname = \"mine\"\nversion = \"1\"\ndependencies = [\"six\"]\n",
		"setup.py":         "from setuptools import setup, Extension\nsetup(ext_modules=[Extension('mine.fast', ['mine/fast.c'])], packages=['mine'])\n",
		"mine/__init__.py": "", "mine/fast.c": "#include <Python.h>\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, \"fast\", 0, -1, 0};\nPyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&m); }\n",
	})
	env, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("-e ."), Source: dir})
	must(t, err)
	if env.Failure != nil {
		t.Fatal(env.Failure)
	}
	built, _ := filepath.Glob(filepath.Join(env.Overlay, "mine", "fast.*.so"))
	if len(built) != 1 || len(env.Deviations) != 1 || !strings.Contains(env.Deviations[0].Used, "while building") {
		t.Errorf("%v %+v", built, env.Deviations)
	}
	img, err := b.WithSource(context.Background(), env, image.SourceRequest{Dir: dir})
	must(t, err)
	ref, err := b.Load(context.Background(), img.Image, "repromill/test:extension")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "-c", "import mine.fast, six, shutil; print(mine.fast.__file__, shutil.which('gcc'))"); code != 0 || !strings.HasPrefix(out, "/src/mine/fast.") || !strings.HasSuffix(out, " None\n") {
		t.Errorf("%d %s", code, out)
	}
	_, err = b.Prune(context.Background(), 0)
	must(t, err)
}
