package image_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/image"
)

// condaPackage is one package of the test's channel.
type condaPackage struct {
	name, version, build string
	depends              []string
	noarch               bool // a Python package
	when                 time.Time
	files                map[string]string // a body that begins with "-> " is a link; the prefix is written {prefix}
}

// placeholder is what packages are built with in the place of their prefix.
const placeholder = "/tmp/placehold_placehold_placehold_placehold"

// channel serves packages as a conda channel (conda's package format 2 and
// repodata.json, docs.conda.io and github.com/conda/ceps) where containers
// reach it, and returns the address above it.
func channel(t *testing.T, name string, packages []condaPackage) string {
	t.Helper()
	type entry map[string]any
	repodata := map[string]map[string]entry{"linux-64": {}, "noarch": {}}
	files := map[string][]byte{}
	for _, p := range packages {
		subdir := "linux-64"
		if p.noarch {
			subdir = "noarch"
		}
		index := entry{"name": p.name, "version": p.version, "build": p.build, "build_number": 0, "depends": append([]string{}, p.depends...), "subdir": subdir, "timestamp": p.when.UnixMilli()}
		if p.noarch {
			index["noarch"] = "python"
		}
		body := condaFile(t, p, index)
		sum := sha256.Sum256(body)
		index["sha256"], index["size"] = hex.EncodeToString(sum[:]), len(body)
		file := p.name + "-" + p.version + "-" + p.build + ".conda"
		repodata[subdir][file] = index
		files["/"+name+"/"+subdir+"/"+file] = body
	}
	for subdir, list := range repodata {
		body, err := json.Marshal(map[string]any{"info": map[string]string{"subdir": subdir}, "packages": entry{}, "packages.conda": list, "repodata_version": 1})
		must(t, err)
		files["/"+name+"/"+subdir+"/repodata.json"] = body
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	must(t, err)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, ok := files[r.URL.Path]; ok {
			w.Write(body)
			return
		}
		http.NotFound(w, r)
	}))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return fmt.Sprintf("http://user:secret@172.17.0.1:%d", l.Addr().(*net.TCPAddr).Port)
}

// condaFile makes a package file: a zip of two archives.
func condaFile(t *testing.T, p condaPackage, index any) []byte {
	t.Helper()
	info, err := json.Marshal(index)
	must(t, err)
	type path struct {
		Path        string `json:"_path"`
		Type        string `json:"path_type"`
		SHA256      string `json:"sha256,omitempty"`
		Size        int    `json:"size_in_bytes,omitempty"`
		Placeholder string `json:"prefix_placeholder,omitempty"`
		Mode        string `json:"file_mode,omitempty"`
	}
	var paths []path
	payload := map[string]string{}
	for name, body := range p.files {
		e := path{Path: name, Type: "hardlink"}
		if strings.HasPrefix(body, "-> ") {
			e.Type = "softlink"
		} else {
			if strings.Contains(body, "{prefix}") {
				body = strings.ReplaceAll(body, "{prefix}", placeholder)
				e.Placeholder, e.Mode = placeholder, "text"
			}
			sum := sha256.Sum256([]byte(body))
			e.SHA256, e.Size = hex.EncodeToString(sum[:]), len(body)
		}
		payload[name] = body
		paths = append(paths, e)
	}
	list, err := json.Marshal(map[string]any{"paths": paths, "paths_version": 1})
	must(t, err)
	meta := map[string]string{"info/index.json": string(info), "info/paths.json": string(list)}
	if p.noarch {
		meta["info/link.json"] = `{"noarch": {"type": "python"}, "package_metadata_version": 1}`
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	stem := p.name + "-" + p.version + "-" + p.build
	for _, part := range []struct {
		name string
		body []byte
	}{{"metadata.json", []byte(`{"conda_pkg_format_version": 2}`)}, {"pkg-" + stem + ".tar.zst", zstdTar(t, payload)}, {"info-" + stem + ".tar.zst", zstdTar(t, meta)}} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: part.name, Method: zip.Store})
		must(t, err)
		_, err = w.Write(part.body)
		must(t, err)
	}
	must(t, z.Close())
	return buf.Bytes()
}

func zstdTar(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw, err := zstd.NewWriter(&buf)
	must(t, err)
	w := tar.NewWriter(zw)
	for name, body := range files {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(body))}
		if to, ok := strings.CutPrefix(body, "-> "); ok {
			h = &tar.Header{Name: name, Mode: 0o777, Typeflag: tar.TypeSymlink, Linkname: to}
			body = ""
		}
		must(t, w.WriteHeader(h))
		_, err := w.Write([]byte(body))
		must(t, err)
	}
	must(t, w.Close())
	must(t, zw.Close())
	return buf.Bytes()
}

// lab is a channel with a Python, which stands on the base's, and packages in
// several versions and builds.
func lab(t *testing.T) string {
	then, late := time.Date(2021, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	answer := func(version string, when time.Time) condaPackage {
		return condaPackage{name: "answer", version: version, build: "py_0", depends: []string{"python >=3", "greeting"}, noarch: true, when: when,
			files: map[string]string{"site-packages/answer.py": "version = " + fmt.Sprintf("%q", version) + "\n",
				"site-packages/answer-" + version + ".dist-info/METADATA":  "Metadata-Version: 2.1\nName: answer\nVersion: " + version + "\n",
				"site-packages/answer-" + version + ".dist-info/INSTALLER": "conda\n"}}
	}
	return channel(t, "lab", []condaPackage{
		{name: "python", version: "3.11.2", build: "0", when: then, files: map[string]string{
			"bin/python": "-> /usr/bin/python3.11", "bin/python3": "-> python", "bin/python3.11": "-> python",
			"pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n", "lib/python3.11/site-packages/README.txt": "\n"}},
		{name: "greeting", version: "1.0", build: "h1", when: then, files: map[string]string{"bin/greet": "#!/bin/sh\necho hello from {prefix}\n"}},
		answer("1.0", then), answer("1.1", then), answer("2.0", late),
	})
}

func condaRequest(t *testing.T, yml string) image.EnvRequest {
	env := spec.Environment{Requirements: []spec.Requirement{{Spec: "-f environment.yml"}}}
	return image.EnvRequest{Environment: env, Source: checkout(t, map[string]string{"environment.yml": yml})}
}

const labFile = `channels: [lab, nodefaults]
dependencies:
  - python=3.11
  - answer=1
  - pip:
    - six==1.16.0
`

// TestConda makes an environment of a channel and a list for pip, with our own
// solver and with a program that has micromamba's command line.
func TestConda(t *testing.T) {
	at := lab(t)
	micromamba := filepath.Join(t.TempDir(), "micromamba")
	must(t, os.WriteFile(micromamba, []byte(`#!/bin/sh
set -e
env -u UV_EXCLUDE_NEWER /run/repromill-uv venv -q --allow-existing --python 3.11 /tmp/mamba
env -u UV_EXCLUDE_NEWER /run/repromill-uv pip install -q --python /tmp/mamba/bin/python -r /run/repromill/conda-tool.txt
exec env -u RM_NEWEST /tmp/mamba/bin/python /run/repromill/conda.py "$@"
`), 0o755))
	when := time.Date(2022, 7, 20, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		program, yml string
		bound        *time.Time
		answer       string
		deviations   []string
	}{
		"rattler":        {"", strings.Replace(labFile, "answer=1", "lab::answer", 1), &when, "1.1", nil},
		"micromamba":     {micromamba, strings.Replace(labFile, "answer=1", "answer", 1), &when, "2.0", []string{"conda packages: none newer than 2022-07-20 -> unbounded"}},
		"its own builds": {"", strings.Replace(labFile, "answer=1", "answer=1.0=py38_7", 1), nil, "1.0", []string{"conda builds: as listed in environment.yml -> any build of the same version"}},
		"unbounded":      {"", strings.Replace(labFile, "answer=1", "answer>=2", 1), &when, "2.0", []string{"conda packages: none newer than 2022-07-20 -> unbounded"}},
	} {
		t.Run(name, func(t *testing.T) {
			var dir string
			b := builder(t, func(c *image.Config) { c.Micromamba, c.Index.Conda, dir = tc.program, at, c.Dir })
			req := condaRequest(t, tc.yml)
			req.Environment.ExcludeNewer = tc.bound
			env, err := b.Environment(context.Background(), req)
			must(t, err)
			log, _ := os.ReadFile(env.Log)
			if env.Failure != nil {
				t.Fatalf("%s\n%s", env.Failure, log)
			}
			var devs []string
			for _, d := range env.Deviations {
				devs = append(devs, d.What+": "+d.Declared+" -> "+d.Used)
				t.Log(d.Reason)
			}
			if !slices.Equal(devs, tc.deviations) {
				t.Errorf("deviations %q, want %q", devs, tc.deviations)
			}
			for _, want := range []string{"# conda lab/noarch::answer==" + tc.answer + "=py_0 sha256:", "# conda lab/linux-64::python==3.11.2=0 sha256:", "six==1.16.0 \\\n    --hash=sha256:"} {
				if !strings.Contains(env.Lock, want) {
					t.Errorf("the lock lacks %q:\n%s", want, env.Lock)
				}
			}
			if strings.Contains(env.Lock+fmt.Sprint(env.Deviations)+string(log), "secret") {
				t.Error("a password of the mirror is told")
			}
			ref, err := b.Load(context.Background(), env.Image, "repromill/test:conda")
			must(t, err)
			remove(t, ref)
			out, code := runIn(t, ref, "sh", "-c", `greet; python -c "import answer, six; print(answer.version, six.__version__)"; ls /opt/env; grep -r 172.17 /opt/env; env`)
			if code != 0 || !strings.HasPrefix(out, "hello from /opt/env\n"+tc.answer+" 1.16.0\n") || strings.Contains(out, "172.17") || !strings.Contains(out, "CONDA_PREFIX=/opt/env\n") {
				t.Errorf("%d %s", code, out)
			}
			again, err := b.Environment(context.Background(), req)
			must(t, err)
			if !again.Reused || again.Digest != env.Digest {
				t.Errorf("%+v", again)
			}
			_, err = b.Prune(context.Background(), 0)
			must(t, err)
			nothingLeft(t, dir)
		})
	}
}

// TestCondaThatIsNotThere takes the packages from the package index.
func TestCondaThatIsNotThere(t *testing.T) {
	for name, tc := range map[string]struct{ at, yml, sku, why string }{
		"no channel": {"http://127.0.0.1:9", "dependencies: [six=1.16, cudatoolkit=11.3]\n", "", "error: "},
		"no package": {lab(t), "channels: [lab]\ndependencies: [python=3.11, six=1.16, cudatoolkit=11.3]\n", "", "No candidates were found for six 1.16.*"},
		"a new GPU":  {lab(t), "channels: [lab]\ndependencies: [python=3.11, six=1.15, cudatoolkit=11.3]\n", "b200", "the GPU needs six==1.16.0"},
	} {
		t.Run(name, func(t *testing.T) {
			b := builder(t, func(c *image.Config) { c.Index.Conda = tc.at })
			req := condaRequest(t, tc.yml)
			if req.SKU = tc.sku; tc.sku != "" {
				req.Base = os.Getenv("REPROMILL_TEST_DOCKER_BASE")
				req.Environment.SKUs = map[string]spec.SKUFit{tc.sku: {Deviations: []spec.Deviation{{What: "six", Declared: "1.15", Used: "1.16.0", Reason: "the floor"}}}}
			}
			env, err := b.Environment(context.Background(), req)
			must(t, err)
			if last := len(env.Deviations) - 1; env.Failure != nil || last < 0 || env.Deviations[last].Used != "its packages from the package index, without cudatoolkit" ||
				!strings.Contains(env.Deviations[last].Reason, tc.why) || !strings.Contains(env.Lock, "six==1.16.0 ") {
				log, _ := os.ReadFile(env.Log)
				t.Fatalf("%s %+v\n%s\n%s", env.Failure, env.Deviations, env.Lock, log)
			}
		})
	}
}

// TestCondaToolThatIsNotThere: an index of the site may lack the conda tool.
func TestCondaToolThatIsNotThere(t *testing.T) {
	at := lab(t)
	b := builder(t, func(c *image.Config) { c.Index.URL, c.Index.Conda = index(t), at })
	env, err := b.Environment(context.Background(), condaRequest(t, "channels: [lab]\ndependencies: [tinypkg]\n"))
	must(t, err)
	if env.Failure != nil || !strings.Contains(env.Lock, "tinypkg==1.0") || !slices.ContainsFunc(env.Deviations, func(d spec.Deviation) bool {
		return d.What == "conda environment" && strings.Contains(d.Reason, "py-rattler")
	}) {
		log, _ := os.ReadFile(env.Log)
		t.Errorf("%s %+v\n%s", env.Failure, env.Deviations, log)
	}
}
