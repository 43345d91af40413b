package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image/layer"
	"github.com/repromill/repromill/runner/tree"
)

func errNoEngine() error {
	return &UserError{"there is no container engine to build with", "start Docker (`repromill doctor` says how), or set DOCKER_HOST"}
}

// job is one environment in the making.
type job struct {
	b    *Builder
	r    *recipe
	st   *state
	dir  string // on disk: env, python, tmp, src
	set  string // in memory: settings
	uv   string
	log  *os.File
	from int64 // where this try begins in the log

	base *base // with system packages
}

// build makes an environment that is not there. Whatever happens, nothing of
// it stays behind but its log.
func (b *Builder) build(ctx context.Context, r *recipe) (*Environment, error) {
	switch {
	case b.cfg.Engine == nil:
		return nil, errNoEngine()
	case !b.cfg.Engine.Local():
		return nil, &UserError{"the container engine at " + b.cfg.Engine.Host() + " is on another machine, which does not see this one's files",
			"build the environment there, push it to a repository, and set `registry` to that repository here"}
	}
	if err := b.room(); err != nil {
		return nil, err
	}
	j := &job{b: b, r: r, st: newState()}
	defer j.close()
	if err := j.open(ctx); err != nil {
		return nil, err
	}
	fail, err := j.tries(ctx)
	if err != nil {
		return nil, b.explain(err)
	}
	if fail != nil {
		fail.Log = j.log.Name()
		return &Environment{Key: r.key, Base: r.base.pin, Deviations: slices.Concat(r.devs, j.st.devs, j.datesDeviation()), Log: j.log.Name(), Failure: fail}, nil
	}
	env, err := j.finish(ctx)
	if err != nil {
		return nil, b.explain(err)
	}
	return env, nil
}

// room refuses to begin what cannot end well.
func (b *Builder) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.cfg.Dir, &st); err != nil {
		return fmt.Errorf("look for free space: %w", err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < b.cfg.Limits.FreeBytes {
		return &UserError{fmt.Sprintf("%s has %.1f GiB free, and an environment may need %.1f", b.cfg.Dir, gib(free), gib(b.cfg.Limits.FreeBytes)),
			"make room, for example with `repromill image prune --keep 10GiB`, or set paths.cache (REPROMILL_CACHE) to a larger disk"}
	}
	return nil
}

func gib(n int64) float64 { return float64(n) / (1 << 30) }

// explain gives a full disk its remedy.
func (b *Builder) explain(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &UserError{"the disk is full: " + err.Error(), "make room, for example with `repromill image prune --keep 10GiB`, and run again: what was finished is kept"}
	}
	return err
}

func (j *job) open(ctx context.Context) (err error) {
	if j.uv, err = j.b.uv(ctx); err != nil {
		return err
	}
	if j.dir, err = os.MkdirTemp(filepath.Join(j.b.cfg.Dir, "work"), "build-"); err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	if err := os.Chmod(j.dir, 0o755); err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	if j.set, err = secretDir(); err != nil {
		return err
	}
	if err := os.Chmod(j.set, 0o755); err != nil {
		return fmt.Errorf("make settings folder: %w", err)
	}
	if j.log, err = os.OpenFile(j.b.logPath(j.r.key), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644); err != nil {
		return fmt.Errorf("open build log: %w", err)
	}
	for _, d := range []string{"env", "python", "tmp"} {
		if err := own(os.Mkdir, filepath.Join(j.dir, d)); err != nil {
			return err
		}
	}
	if !j.edits() {
		return nil
	}
	return j.copySource(ctx)
}

func own(make func(string, os.FileMode) error, path string) error {
	err := make(path, 0o755)
	if err == nil && os.Geteuid() == 0 {
		err = os.Lchown(path, nobody, nobody)
	}
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	return nil
}

// edits says whether anything is installed from the checkout.
func (j *job) edits() bool {
	for _, l := range j.r.inputs.Lines {
		if l.Edit {
			return true
		}
	}
	return false
}

func (j *job) close() {
	if j.log != nil {
		j.log.Close()
	}
	for _, d := range []string{j.dir, j.set} {
		if d != "" {
			discard(d)
		}
	}
}

// discard removes a folder that builds wrote in. What cannot be removed is found
// by [Builder.Prune].
func discard(dir string) { _ = tree.Remove(dir) }

// tries installs, and repairs what can be repaired until nothing can.
func (j *job) tries(ctx context.Context) (*Failure, error) {
	if err := j.conda(ctx); err != nil {
		return nil, err
	}
	for n := 0; ; {
		if err := j.bridge(ctx); err != nil {
			return nil, err
		}
		fail, err := j.system(ctx)
		if errors.Is(err, errNoPython) && j.nextInterpreter() {
			continue
		}
		if fail != nil || err != nil {
			return fail, err
		}
		out, text, err := j.try(ctx)
		if err != nil {
			return nil, err
		}
		if out.code == 0 && !out.timeout && !out.flood && !out.disk {
			if again, err := j.boundByDates(ctx); err != nil {
				return nil, err
			} else if again {
				continue
			}
			return nil, j.complete(ctx)
		}
		if fail := j.hopeless(out, text); fail != nil {
			return fail, nil
		}
		if j.st.from == fromConda && condaFailedRE.MatchString(text) {
			if err := j.mendConda(ctx, text); err != nil {
				return nil, err
			}
			continue
		}
		if m := versionLineRE.FindStringSubmatch(text); m != nil && j.st.from == fromConda {
			j.st.python = strings.Join(strings.SplitN(m[1], ".", 3)[:2], ".")
		}
		if !strings.Contains(text, "::repromill:: version ") && j.nextInterpreter() {
			continue // it came to no Python, so nothing else can be said
		}
		text = markRE.ReplaceAllString(text, "")
		fixed, before := false, len(j.st.devs)
		if n++; n <= j.b.cfg.Limits.Tries {
			if fixed, err = j.repair(ctx, text); err != nil {
				return nil, err
			}
		}
		if !fixed && j.dropDates(text) {
			fixed = true
		}
		if !fixed {
			return j.failure(text), nil
		}
		for _, d := range j.st.devs[before:] {
			fmt.Fprintf(j.log, "::repromill:: repair %s: %s -> %s (%s)\n", d.What, d.Declared, d.Used, d.Reason)
			j.b.cfg.Progress(Event{"repair", fmt.Sprintf("%s: %s → %s", d.What, d.Declared, d.Used)})
		}
	}
}

// complete adds the shared libraries of the system that were installed
// extensions need. That changes nothing that was installed.
func (j *job) complete(ctx context.Context) error {
	missing, err := j.missingLibraries(ctx)
	if err != nil || !j.addLibraries(missing) {
		return err
	}
	j.b.cfg.Progress(Event{"system", strings.Join(missing, " ")})
	fail, err := j.system(ctx)
	if fail != nil { // it installs without them, so that is not the end
		j.st.deviate("system package", strings.Join(missing, ", "), "none", fail.Reason)
	}
	return err
}

// markRE finds the build script's own lines, which are for this program.
var markRE = regexp.MustCompile(`(?m)^::repromill::.*\n?`)

// hopeless is the failure of a try that no repair mends.
func (j *job) hopeless(out outcome, text string) *Failure {
	last := lastLines(markRE.ReplaceAllString(text, ""), 2)
	switch {
	case out.timeout:
		return &Failure{Reason: fmt.Sprintf("installing took longer than %s (perhaps it waited for input, of which there is none); its last words: %s", j.b.cfg.Limits.Wall, or(last, "none"))}
	case out.flood:
		return &Failure{Reason: fmt.Sprintf("installing printed more than %d MiB", j.b.cfg.Limits.LogBytes>>20)}
	case out.disk:
		return &Failure{Reason: fmt.Sprintf("installing wrote more than the %.0f GiB that it may take", gib(j.b.cfg.Limits.DiskBytes))}
	case out.oom:
		return &Failure{Reason: fmt.Sprintf("installing needed more than %.0f GiB of memory", gib(j.b.cfg.Limits.MemoryBytes))}
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	return strings.Join(lines[max(0, len(lines)-n):], " ")
}

// try runs the container once and returns its output.
func (j *job) try(ctx context.Context) (outcome, string, error) {
	if err := j.b.writeSettings(j.set, j.r, j.st); err != nil {
		return outcome{}, "", err
	}
	id, err := j.b.inEngine(ctx, j.base)
	if err != nil {
		return outcome{}, "", err
	}
	from, err := j.log.Seek(0, 2)
	if err != nil {
		return outcome{}, "", fmt.Errorf("read build log: %w", err)
	}
	at := func(host, inside string) engine.Mount {
		return engine.Mount{Source: filepath.Join(j.dir, host), Target: inside}
	}
	c := engine.Container{
		Image: id, Entrypoint: []string{"/bin/sh", settingsPath + "/build.sh"}, Dir: "/tmp",
		Labels: map[string]string{LabelBuild: j.r.key},
		Mounts: []engine.Mount{
			at("env", EnvPath), at("python", PythonPath), at("tmp", "/tmp"),
			{Source: j.set, Target: settingsPath, ReadOnly: true}, {Source: j.uv, Target: "/run/repromill-uv", ReadOnly: true},
		},
	}
	if j.st.from == fromConda && j.b.cfg.Micromamba != "" {
		c.Mounts = append(c.Mounts, engine.Mount{Source: j.b.cfg.Micromamba, Target: micromambaPath, ReadOnly: true})
	}
	if j.edits() {
		c.Mounts = append(c.Mounts, at("src", SourcePath))
	}
	w := &phases{w: j.log, tell: j.b.cfg.Progress}
	var out outcome
	if j.b.cfg.Program != "" {
		out, err = j.confined(ctx, c, w)
	} else {
		out, err = j.b.run(ctx, c, w)
	}
	if err != nil {
		return out, "", err
	}
	text, err := readFrom(j.log.Name(), from)
	return out, text, err
}

// readFrom reads the end of a log, at most its last 4 MiB.
func readFrom(path string, from int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read build log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read build log: %w", err)
	}
	from = max(from, info.Size()-4<<20)
	body := make([]byte, info.Size()-from)
	n, err := f.ReadAt(body, from)
	if n < len(body) {
		return "", fmt.Errorf("read build log: %w", err)
	}
	return string(body), nil
}

// phases is a log that tells what the build script is at.
type phases struct {
	w    *os.File
	tell func(Event)
}

var phaseRE = regexp.MustCompile(`(?m)^::repromill:: (python|conda|resolve|install)$`)

func (p *phases) Write(b []byte) (int, error) {
	for _, m := range phaseRE.FindAllSubmatch(b, -1) {
		p.tell(Event{string(m[1]), ""})
	}
	return p.w.Write(b)
}

var versionLineRE = regexp.MustCompile(`(?m)^::repromill:: version (\S+)$`)

// finish turns what was installed into an image and records it.
func (j *job) finish(ctx context.Context) (*Environment, error) {
	rec := &record{
		Kind: kindEnvironment, Key: j.r.key, Created: j.b.cfg.Now(), Log: j.log.Name(), System: slices.Compact(append(slices.Clone(j.r.system), j.st.packages...)),
		Deviations: append(slices.Clone(j.r.devs), j.st.devs...), Base: j.base.rec.Base, Local: j.base.rec.Local, Layers: slices.Clone(j.base.rec.Layers),
	}
	_, _, _, devs := j.b.indexes(j.r, j.st)
	rec.Deviations = append(rec.Deviations, devs...)
	lock, err := os.ReadFile(filepath.Join(j.dir, "tmp", "repromill-lock.txt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	fromChannels, err := j.condaLock()
	if err != nil {
		return nil, err
	}
	rec.Lock = fromChannels + string(lock)
	rec.Deviations = slices.Concat(rec.Deviations, j.bridged(rec.Lock), j.unboundedConda(), j.datesDeviation())
	text, err := readFrom(j.log.Name(), 0)
	if err != nil {
		return nil, err
	}
	if m := versionLineRE.FindAllStringSubmatch(text, -1); m != nil {
		rec.Python = m[len(m)-1][1]
	}
	j.b.cfg.Progress(Event{"layer", ""})
	img, err := j.layers(ctx, rec)
	if err != nil {
		return nil, err
	}
	if img, err = j.configure(img, rec); err != nil {
		return nil, err
	}
	if err := j.b.keep(img, rec); err != nil {
		return nil, err
	}
	if err := j.b.writeRecord(rec); err != nil {
		return nil, err
	}
	if img, err = j.b.open(rec); err != nil {
		return nil, err
	}
	env := rec.environment(img)
	env.Reused = false
	return env, j.b.publish(ctx, env)
}

// layers appends what the build wrote.
func (j *job) layers(ctx context.Context, rec *record) (v1.Image, error) {
	img := j.base.image
	add := func(dir, at string) error {
		l, err := j.b.blobs.Write(ctx, dir, layer.Options{At: at, Skip: func(rel string, e fs.DirEntry) bool {
			return e.Name() == "__pycache__" && e.IsDir() || rel == cacheName || rel == ".lock" || rel == "CACHEDIR.TAG" ||
				rel == "conda-meta" // which says where it came from, and the lock has the rest
		}})
		if err != nil {
			return err
		}
		rec.Layers = append(rec.Layers, l.Descriptor())
		img, err = mutate.AppendLayers(img, matching(img, l))
		return err
	}
	if err := add(filepath.Join(j.dir, "env"), EnvPath); err != nil {
		return nil, fmt.Errorf("append environment: %w", err)
	}
	if j.st.from == fromUV {
		if err := add(filepath.Join(j.dir, "python"), PythonPath); err != nil {
			return nil, fmt.Errorf("append interpreter: %w", err)
		}
	}
	over, err := j.overlay()
	if err != nil {
		return nil, err
	}
	if rec.Overlay = over; over != "" {
		if err := add(over, SourcePath); err != nil {
			return nil, fmt.Errorf("append what was built in the checkout: %w", err)
		}
	}
	return img, nil
}

// matching gives a layer the media type of the image's family: a registry may
// refuse an OCI manifest with Docker's layers.
func matching(img v1.Image, l *layer.Layer) v1.Layer {
	if m, err := img.MediaType(); err == nil && strings.Contains(string(m), "oci") {
		return &typed{l, "application/vnd.oci.image.layer.v1.tar+gzip"}
	}
	return l
}

func (j *job) configure(img v1.Image, rec *record) (v1.Image, error) {
	cfg, err := j.base.image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration of the base: %w", err)
	}
	label, err := rec.label()
	if err != nil {
		return nil, err
	}
	return withConfig(img, cfg, func(c *v1.Config) {
		path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		c.Env = slices.DeleteFunc(c.Env, func(kv string) bool {
			if p, ok := strings.CutPrefix(kv, "PATH="); ok {
				path = p
				return true
			}
			return strings.HasPrefix(kv, "VIRTUAL_ENV=") || strings.HasPrefix(kv, "CONDA_PREFIX=")
		})
		home := "VIRTUAL_ENV="
		if j.st.from == fromConda {
			home = "CONDA_PREFIX="
		}
		c.Env = append(c.Env, "PATH="+EnvPath+"/bin:"+path, home+EnvPath)
		c.WorkingDir, c.Entrypoint, c.Cmd, c.User = SourcePath, nil, []string{"python"}, fmt.Sprintf("%d:%d", nobody, nobody)
		c.Labels = maps.Clone(c.Labels)
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[LabelKey], c.Labels[LabelEnvironment] = rec.Key, label
	})
}
