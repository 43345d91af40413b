package image

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

// fromConda is the interpreter of conda channels. A plan's conda environment is
// made of them, and its list for pip comes on top. What its channels cannot give
// is taken from the package index instead, which is a deviation.
const fromConda = "conda"

// condaProgram speaks micromamba's command line; see its first lines.
//
//go:embed conda.py
var condaProgram string

// condaTool is what condaProgram imports (py-rattler on pypi.org, wheels for
// Python 3.10 and later).
const condaTool = `py-rattler==0.28.0 \
    --hash=sha256:4f4ab1d34d5394e7ce130a86e59009c95ace4f5757d9c3af04de1351bcea47eb \
    --hash=sha256:61b24202374188e72130f1b3dc63b455befaafc3e49e5481a38b6a6c8828c1e0
`

// condaToolPython is the oldest minor version of Python that condaTool runs on.
const condaToolPython = 10

// micromambaPath is where a build container sees a configured micromamba.
const micromambaPath = "/run/repromill-micromamba"

// channel is a conda channel and the name that a lock shows for it.
type channel struct{ name, url string }

// channels are those of a conda environment; a mirror stands in the place of
// the public ones. A channel of no host that a URL could name is left out.
func (b *Builder) channels(c *pip.Conda) (out []channel) {
	names := slices.DeleteFunc(slices.Clone(c.Channels), func(n string) bool { return n == "nodefaults" })
	if len(names) == 0 {
		names = append(names, "defaults")
	}
	for _, l := range c.Specs {
		if name, _, ok := strings.Cut(l.Text, "::"); ok {
			names = append(names, name)
		}
	}
	add := func(name, at string) {
		if !slices.Contains(out, channel{name, at}) {
			out = append(out, channel{name, at})
		}
	}
	anywhere, anaconda := "https://conda.anaconda.org", "https://repo.anaconda.com/pkgs"
	if u, err := url.Parse(b.cfg.Index.Conda); err == nil && u.Host != "" {
		u.User = nil // builds run foreign code, which is never given a secret
		anywhere = strings.TrimSuffix(u.String(), "/")
		anaconda = anywhere
	}
	for _, n := range names {
		n = strings.Trim(strings.TrimSpace(n), "/")
		u, err := url.Parse(n)
		switch {
		case err != nil || n == "":
		case n == "defaults":
			add("main", anaconda+"/main")
			add("r", anaconda+"/r")
		case u.Scheme == "https" && u.Host == "conda.anaconda.org":
			add(strings.Trim(u.Path, "/"), anywhere+u.Path)
		case u.Scheme == "https" && u.Host != "" && u.User == nil:
			add(u.Host+u.Path, n)
		case channelRE.MatchString(n):
			add(n, anywhere+"/"+n)
		}
	}
	return out
}

var channelRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,3}$`)

// conda begins with the environment's own channels, where it names some.
func (j *job) conda(ctx context.Context) error {
	c := j.r.inputs.Conda
	if c == nil {
		return j.interpreters(ctx)
	}
	j.st.from = fromConda
	if j.b.cfg.Micromamba != "" {
		return nil
	}
	have, err := j.b.probe(ctx, j.r.base)
	if err != nil {
		return err
	}
	for _, v := range have {
		if minor, err := strconv.Atoi(strings.TrimPrefix(v, "3.")); err == nil && minor >= condaToolPython {
			j.st.tool = v
			return nil
		}
	}
	return j.withoutConda(ctx, fmt.Sprintf("the base image %s has no Python 3.%d or later for the conda tool, and images.micromamba is not set", j.r.base.ref, condaToolPython))
}

// withoutConda takes the packages of the environment from the package index.
func (j *job) withoutConda(ctx context.Context, why string) error {
	c := j.r.inputs.Conda
	in := *j.r.inputs
	in.Conda, in.Lines = nil, slices.Concat(c.Packages, in.Lines)
	j.r.inputs = &in
	j.st.devs = append(j.st.devs, c.AsPackages(why))
	env := filepath.Join(j.dir, "env")
	discard(env)
	if err := own(os.Mkdir, env); err != nil {
		return err
	}
	return j.interpreters(ctx)
}

var (
	// condaFailedRE finds the code: 3 where a channel, and 4 where the tool could
	// not be had.
	condaFailedRE = regexp.MustCompile(`(?m)^::repromill:: conda failed (\d+)$`)
	// noChannelRE is how micromamba and rattler say that a channel or package
	// could not be fetched.
	noChannelRE = regexp.MustCompile(`(?i)error sending request|download error|could not (?:resolve|connect)|failed to (?:fetch|download)|transfer (?:closed|failed)`)
	condaWordRE = regexp.MustCompile(`(?m)^(?:error:|critical|Could not solve)[^\n]*(?:\n[ │├└─╰╭×].*)*`)
)

// mendConda loosens what a conda solver refused: builds first, which a channel
// drops when it rebuilds, then the date, and last the channels themselves.
func (j *job) mendConda(ctx context.Context, text string) error {
	c := j.r.inputs.Conda
	words := strings.Join(strings.Fields(or(condaWordRE.FindString(text), pip.Complaint(strings.Split(text, "\n")))), " ")
	if len(words) > 400 {
		words = words[:400] + "…"
	}
	words = or(words, "the channels could not be used")
	env := &j.r.req.Environment
	m := condaFailedRE.FindStringSubmatch(text)
	reached := m[1] != "3" && m[1] != "4" && !noChannelRE.MatchString(text)
	switch {
	case reached && c.HasBuilds() && j.st.once("conda builds"):
		j.st.looseBuilds = true
		j.st.deviate("conda builds", "as listed in "+c.File, "any build of the same version", words)
	case reached && env.ExcludeNewer != nil && j.b.cfg.Micromamba == "" && j.st.once("conda date"):
		j.st.condaUnbounded = true
		j.st.deviate("conda packages", "none newer than "+env.ExcludeNewer.UTC().Format("2006-01-02"), "unbounded", words)
	default:
		return j.withoutConda(ctx, words)
	}
	return nil
}

// condaSettings writes what the build script needs of a conda environment.
func (b *Builder) condaSettings(r *recipe, st *state, files, env map[string]string) {
	c := r.inputs.Conda
	if c == nil || st.from != fromConda {
		return
	}
	var specs, at []string
	python := false
	for _, l := range c.Specs {
		python = python || l.Name == "python"
		if st.looseBuilds {
			l.Text = pip.WithoutBuild(l.Text)
		}
		if _, rest, ok := strings.Cut(l.Text, "::"); ok && b.cfg.Index.Conda != "" {
			l.Text = rest // a channel's name stands for its public address
		}
		specs = append(specs, l.Text)
	}
	if !python {
		specs = append(specs, strings.TrimSpace("python "+plainVersion(r.req.Environment.Python.Version)))
	}
	for _, ch := range b.channels(c) {
		at = append(at, ch.url)
	}
	env["RM_PYTHON"] = st.tool
	files["conda.py"], files["conda-tool.txt"] = condaProgram, condaTool
	files["conda.txt"], files["channels.txt"] = strings.Join(specs, "\n")+"\n", strings.Join(at, "\n")+"\n"
	env["MAMBA_ROOT_PREFIX"], env["CONDA_PKGS_DIRS"] = EnvPath+"/"+cacheName+"/conda", EnvPath+"/"+cacheName+"/conda/pkgs"
	if t := r.req.Environment.ExcludeNewer; t != nil && !st.condaUnbounded {
		env["RM_NEWEST"] = t.UTC().Format("2006-01-02T15:04:05+00:00")
	}
	if cuda, ok := strings.CutPrefix(r.backend, "cu"); ok && len(cuda) > 2 {
		env["CONDA_OVERRIDE_CUDA"] = cuda[:len(cuda)-1] + "." + cuda[len(cuda)-1:]
	}
}

var plainVersionRE = regexp.MustCompile(`^3(\.\d+){1,2}$`)

// plainVersion is a declared Python as a match specification, or "".
func plainVersion(s string) string {
	if plainVersionRE.MatchString(s) {
		return s + ".*"
	}
	return ""
}

// unboundedConda is the deviation of a micromamba, which knows no bounding date.
func (j *job) unboundedConda() (out []spec.Deviation) {
	t := j.r.req.Environment.ExcludeNewer
	if j.st.from == fromConda && j.b.cfg.Micromamba != "" && t != nil {
		out = append(out, spec.Deviation{What: "conda packages", Declared: "none newer than " + t.UTC().Format("2006-01-02"), Used: "unbounded",
			Reason: "micromamba has no option that bounds them"})
	}
	return out
}

// maxMeta bounds one record of an installed package.
const maxMeta = 64 << 20

// condaLock lists what the channels gave, as comments of the lock: without the
// place it came from, which may be the site's own.
func (j *job) condaLock() (string, error) {
	if j.st.from != fromConda {
		return "", nil
	}
	root, err := os.OpenRoot(filepath.Join(j.dir, "env"))
	if err != nil {
		return "", fmt.Errorf("read conda records: %w", err)
	}
	defer root.Close()
	dir, err := root.Open("conda-meta")
	if err != nil {
		return "", fmt.Errorf("read conda records: %w", err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(20_000)
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read conda records: %w", err)
	}
	var lines []string
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		line, err := j.condaRecord(root, "conda-meta/"+e.Name())
		if err != nil {
			return "", err
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}

func (j *job) condaRecord(root *os.Root, path string) (string, error) {
	f, err := root.Open(path)
	if err != nil {
		return "", fmt.Errorf("read conda records: %w", err)
	}
	defer f.Close()
	var m struct{ Name, Version, Build, Subdir, URL, SHA256, MD5 string }
	if err := json.NewDecoder(io.LimitReader(f, maxMeta)).Decode(&m); err != nil {
		return "", fmt.Errorf("read conda record %s: %w", filepath.Base(path), err)
	}
	name := "?"
	for _, c := range j.b.channels(j.r.inputs.Conda) {
		if strings.HasPrefix(m.URL, c.url+"/") {
			name = c.name
		}
	}
	sum := "sha256:" + m.SHA256
	if m.SHA256 == "" {
		sum = "md5:" + m.MD5
	}
	line := fmt.Sprintf("# conda %s/%s::%s==%s=%s %s", name, m.Subdir, m.Name, m.Version, m.Build, sum)
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, line) + "\n", nil
}
