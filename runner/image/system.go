package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image/tool"
	"github.com/repromill/repromill/runner/pip"
)

// interpreters finds what Python the base has and lists what else could be
// used: what the base has of what is acceptable, then the best acceptable
// version from each other source, then what the base has at all.
func (j *job) interpreters(ctx context.Context) error {
	have, err := j.b.probe(ctx, j.r.base)
	if err != nil {
		return err
	}
	add := func(version, from string) {
		if o := (interpreter{version, from}); !slices.Contains(j.st.others, o) {
			j.st.others = append(j.st.others, o)
		}
	}
	base := slices.Contains(j.b.cfg.Interpreters, fromBase)
	for _, v := range j.r.pythons {
		if base && slices.Contains(have, v) {
			add(v, fromBase)
		}
	}
	for _, from := range j.b.cfg.Interpreters {
		if from != fromBase && len(j.r.pythons) > 0 {
			add(j.r.pythons[0], from)
		}
	}
	for _, v := range slices.Backward(have) { // a Python nobody asked for is better than none
		if base {
			add(v, fromBase)
		}
	}
	if len(j.st.others) == 0 {
		return &UserError{"the base image " + j.r.base.ref + " has no Python", "configure base images with Python (images.bases), or another source of interpreters (images.interpreters)"}
	}
	j.nextInterpreter()
	return nil
}

// nextInterpreter takes the next one of those that could be used.
func (j *job) nextInterpreter() bool {
	if len(j.st.others) == 0 {
		return false
	}
	next := j.st.others[0]
	j.st.others = j.st.others[1:]
	j.st.python, j.st.from = next.version, next.from
	if env := &j.r.req.Environment; env.Python.Version != "" && !slices.Contains(j.r.pythons, next.version) {
		j.st.deviate("python", env.Python.Version+at(where(env.Python.Evidence)), next.version, "no interpreter of that version was found, and the base image "+j.r.base.ref+" has this one")
	}
	return true
}

func at(where string) string {
	if where == "" {
		return ""
	}
	return " (" + where + ")"
}

const probeScript = `for p in /usr/bin/python3.* /usr/local/bin/python3.* /opt/conda/bin/python3.*; do case "$p" in *-config) ;; *) [ -x "$p" ] && "$p" -I -c 'import sys; print("python %d.%d" % sys.version_info[:2])' 2>/dev/null;; esac; done; exit 0`

var probeRE = regexp.MustCompile(`(?m)^python (3\.\d+)\r?$`)

// probe lists the Pythons that a base image has. The answer is kept by digest.
func (b *Builder) probe(ctx context.Context, bs *base) ([]string, error) {
	at := filepath.Join(b.cfg.Dir, "probes", strings.ReplaceAll(bs.digest(), ":", "-"))
	if body, err := os.ReadFile(at); err == nil {
		return strings.Fields(string(body)), nil
	}
	cfg, err := bs.image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read base image: %w", err)
	}
	var have []string
	for _, kv := range cfg.Config.Env { // the official images say it
		if v, ok := strings.CutPrefix(kv, "PYTHON_VERSION="); ok && strings.Count(v, ".") >= 2 {
			have = append(have, strings.Join(strings.Split(v, ".")[:2], "."))
		}
	}
	if len(have) == 0 {
		id, err := b.inEngine(ctx, bs)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		_, err = b.run(ctx, engine.Container{Image: id, Entrypoint: []string{"/bin/sh", "-c", probeScript}, Network: "none", Labels: map[string]string{LabelBuild: "probe"}}, &out)
		if err != nil {
			return nil, err
		}
		for _, m := range probeRE.FindAllStringSubmatch(out.String(), -1) {
			have = append(have, m[1])
		}
	}
	slices.Sort(have)
	have = slices.Compact(have)
	if err := os.WriteFile(at, []byte(strings.Join(have, " ")), 0o644); err != nil {
		return nil, fmt.Errorf("keep probe: %w", err)
	}
	return have, nil
}

// toolchain is what compiling extensions needs.
var toolchain = []string{"build-essential", "git", "pkg-config"}

// errNoPython says that the distribution does not have the Python of this try.
var errNoPython = errors.New("the distribution has no such Python")

// system makes sure that the base has the packages of this try. Those that only
// building needs are in another image, in which the container runs.
func (j *job) system(ctx context.Context) (*Failure, error) {
	packages := append(slices.Clone(j.r.system), j.st.packages...)
	if j.st.from == fromApt {
		packages = append(packages, "python"+j.st.python, "python"+j.st.python+"-venv")
	}
	final, fail, err := j.withPackages(ctx, packages)
	if fail != nil || err != nil {
		return fail, err
	}
	j.base = final
	tools := slices.Clone(j.st.tools)
	if j.r.req.Environment.NeedsCompile {
		tools = append(tools, toolchain...)
	}
	if len(tools) == 0 {
		return nil, nil
	}
	if j.st.from != fromUV {
		tools = append(tools, "python3-dev")
	}
	build, fail, err := j.withPackages(ctx, append(packages, tools...))
	if fail != nil || err != nil {
		return fail, err
	}
	// The layers are the final image's; only the container is another one.
	id, err := j.b.inEngine(ctx, build)
	if err != nil {
		return nil, err
	}
	j.base = &base{ref: final.ref, pin: final.pin, id: id, rec: final.rec, image: final.image}
	return nil, nil
}

// otherNames are packages that newer releases of Debian and Ubuntu renamed.
var otherNames = map[string]string{
	"libgl1-mesa-glx": "libgl1", "python-dev": "python3-dev", "python-pip": "python3-pip", "libasound2": "libasound2t64", "libglib2.0-0": "libglib2.0-0t64",
	"libjasper-dev": "", "libtbb2": "libtbbmalloc2", "python-tk": "python3-tk", "libdc1394-22-dev": "libdc1394-dev", "libgl1-mesa-dri-dev": "libgl-dev",
	"libosmesa6-dev": "libosmesa6", "libopenblas-base": "libopenblas0", "libpng12-dev": "libpng-dev", "libgfortran3": "libgfortran5", "netcat": "netcat-openbsd",
}

var missingPackageRE = regexp.MustCompile(`E: (?:Unable to locate package|Package '?|Couldn't find any package by (?:glob|regex) ')\s*([a-z0-9][a-z0-9+.:-]*)`)

// colourRE is what the classic builder puts around standard error.
var colourRE = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// withPackages returns the base with packages of its distribution. A package
// that the distribution has under another name, or not at all, is a deviation.
func (j *job) withPackages(ctx context.Context, packages []string) (*base, *Failure, error) {
	for {
		packages = slices.DeleteFunc(packages, func(p string) bool { return j.st.dropped["package "+p] })
		slices.Sort(packages)
		packages = slices.Compact(packages)
		if len(packages) == 0 {
			return j.r.base, nil, nil
		}
		bs, err := j.b.systemImage(ctx, j.r.base, packages, j.log)
		var built *engine.BuildError
		if err == nil || !errors.As(err, &built) {
			return bs, nil, err
		}
		text, rerr := readFrom(j.log.Name(), j.from)
		if rerr != nil {
			return nil, nil, rerr
		}
		if j.from, err = j.log.Seek(0, 2); err != nil {
			return nil, nil, fmt.Errorf("read build log: %w", err)
		}
		text = colourRE.ReplaceAllString(text, "")
		m := missingPackageRE.FindAllStringSubmatch(text, -1)
		if m == nil {
			return nil, &Failure{Reason: "the packages " + strings.Join(packages, ", ") + " cannot be installed: " + lastLines(text, 2)}, nil
		}
		for _, x := range m {
			gone := strings.TrimSuffix(x[1], "'")
			if j.st.from == fromApt && strings.HasPrefix(gone, "python"+j.st.python) {
				return nil, nil, errNoPython
			}
			i := slices.Index(packages, gone)
			if i < 0 {
				return nil, &Failure{Package: gone, Reason: "the base image's distribution has no such package, which another one needs"}, nil
			}
			other := otherNames[gone]
			j.st.deviate("system package", gone, or(other, "none"), "the distribution of "+j.r.base.ref+" has no package of that name")
			j.st.dropped["package "+gone] = true
			packages[i] = other
		}
		packages = slices.DeleteFunc(packages, func(p string) bool { return p == "" })
	}
}

// systemImage builds, or finds, a base with packages.
func (b *Builder) systemImage(ctx context.Context, bs *base, packages []string, log io.Writer) (*base, error) {
	sum := sha256.Sum256([]byte(fmt.Sprint(builderVersion, bs.digest(), packages)))
	key := hex.EncodeToString(sum[:])
	if rec, err := b.readRecord(kindSystem, key); err == nil && rec != nil {
		if img, err := b.open(rec); err == nil {
			b.touch(rec)
			return b.systemBase(ctx, bs, rec, &base{ref: bs.ref, rec: rec, image: img})
		}
	}
	b.cfg.Progress(Event{"system", strings.Join(packages, " ")})
	from, err := b.inEngine(ctx, bs)
	if err != nil {
		return nil, err
	}
	context, err := b.dockerfile(from, packages)
	if err != nil {
		return nil, err
	}
	args := map[string]string{}
	if p := b.cfg.Index.Proxy; p != "" { // predefined arguments, which are not kept in the image
		args["http_proxy"], args["https_proxy"], args["no_proxy"] = p, p, b.cfg.Index.NoProxy
	}
	id, err := b.cfg.Engine.Build(ctx, engine.Build{Context: context, Args: args, Tags: []string{systemTag(key)}, Labels: map[string]string{LabelKey: key}, Log: log})
	if err != nil {
		return nil, err
	}
	rec := &record{Kind: kindSystem, Key: key, Base: bs.pin, Local: id, Created: b.cfg.Now(), System: packages, Layers: slices.Clone(bs.rec.Layers)}
	img, err := b.importFromEngine(ctx, id, bs.image, rec)
	if err != nil {
		return nil, err
	}
	return &base{ref: bs.ref, id: id, rec: rec, image: img}, b.writeRecord(rec)
}

// systemBase gives a recorded image its name in the engine, loading it when
// the engine has lost it.
func (b *Builder) systemBase(ctx context.Context, below *base, rec *record, bs *base) (*base, error) {
	if _, err := b.cfg.Engine.InspectImage(ctx, rec.Local); err == nil {
		bs.id = rec.Local
		return bs, nil
	} else if !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	if _, err := b.inEngine(ctx, below); err != nil {
		return nil, err
	}
	id, err := b.Load(ctx, bs.image, systemTag(rec.Key))
	bs.id = id
	return bs, err
}

// dockerfile is the context of a build that installs packages. The lists that
// apt fetched are removed in the same step, so that no layer has them.
func (b *Builder) dockerfile(from string, packages []string) (io.Reader, error) {
	sources := ""
	if m := b.cfg.Index.Debian; m != "" {
		if strings.ContainsAny(m, "' \n\\") {
			return nil, &UserError{"the mirror of Debian packages is no URL", "correct images.debian"}
		}
		sources = ` . /etc/os-release; printf 'deb %s %s main\n' '` + m + `' "$VERSION_CODENAME" >/tmp/mirror.list; apt="$apt -o Dir::Etc::sourcelist=/tmp/mirror.list -o Dir::Etc::sourceparts=-";`
	}
	text := "FROM " + from + "\nUSER 0:0\nRUN set -e; export DEBIAN_FRONTEND=noninteractive; apt='apt-get -q -o Acquire::Retries=3';" + sources +
		" $apt update; $apt install -y --no-install-recommends " + strings.Join(packages, " ") +
		" </dev/null; rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache /tmp/mirror.list\n"
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("write build context: %w", err)
	}
	return &buf, nil
}

// uv is the path of the program that resolves and installs.
func (b *Builder) uv(ctx context.Context) (string, error) {
	if b.cfg.UV != "" {
		return b.cfg.UV, nil
	}
	index, _ := pip.Indexes([]string{or(b.cfg.Index.URL, pip.DefaultIndex().String())})
	return tool.UV(ctx, tool.Config{Index: index[0], Dir: filepath.Join(b.cfg.Dir, "tools"), HTTP: b.cfg.HTTP, Hook: b.cfg.Hook})
}
