package runner

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

// Interpreter is a Python that was found on this machine.
type Interpreter struct {
	Path    string `json:"path"`    // absolute, with links resolved by the interpreter itself
	Version string `json:"version"` // "3.11"
	Prefix  string `json:"prefix"`  // where its standard library lies
}

// probe is what a Python says of itself, one line each. It is the system's own
// interpreter in isolated mode (-I): no code of the checkout is involved.
const probe = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2]); print(sys.base_prefix)"

var pythonVersion = regexp.MustCompile(`^\s*(>=|==|~=|)\s*(\d+)\.(\d+)`)

// newest is the newest minor version of Python 3 that is looked for by name.
const newest = 16

// findPython returns the interpreter for a wanted version ("3.10", "3.10.4",
// ">=3.8", or empty). Where the wanted one is not found it returns another
// with the deviation, and a zero Interpreter when there is none at all.
func (d *drive) findPython(ctx context.Context, want string) (Interpreter, []spec.Deviation, error) {
	m := pythonVersion.FindStringSubmatch(want)
	if d.python.Path != "" {
		return d.python, d.misfit(want, m), nil
	}
	if m == nil {
		py, err := d.firstPython(ctx, append([]string{"python3", "python"}, minorNames(0)...))
		return py, nil, err
	}
	minor, err := strconv.Atoi(m[3])
	if err != nil || m[2] != "3" {
		py, ferr := d.firstPython(ctx, append(minorNames(0), "python3"))
		return py, deviation(want, py), ferr
	}
	py, err := d.firstPython(ctx, []string{"python3." + m[3]})
	if err != nil || py.Path != "" {
		return py, nil, err
	}
	if m[1] == ">=" {
		py, err := d.firstPython(ctx, append(minorNames(minor), "python3"))
		if err != nil || (py.Path != "" && atLeast(py.Version, minor)) {
			return py, nil, err
		}
	}
	py, err = d.firstPython(ctx, append(minorNames(0), "python3", "python"))
	if py.Version == "3."+m[3] {
		return py, nil, err
	}
	return py, deviation(want, py), err
}

// misfit is the deviation of the only Python there is from the wanted one.
func (d *drive) misfit(want string, m []string) []spec.Deviation {
	if m == nil || d.python.Version == "3."+m[3] && m[2] == "3" {
		return nil
	}
	if minor, err := strconv.Atoi(m[3]); err == nil && m[1] == ">=" && m[2] == "3" && atLeast(d.python.Version, minor) {
		return nil
	}
	return []spec.Deviation{{What: "python", Declared: want, Used: d.python.Version, Reason: "it is the one of the image that the cluster runs"}}
}

func deviation(want string, py Interpreter) []spec.Deviation {
	if py.Path == "" {
		return nil
	}
	return []spec.Deviation{{What: "python", Declared: want, Used: py.Version, Reason: "no such interpreter was found on this machine"}}
}

func atLeast(version string, minor int) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(version, "3."))
	return err == nil && n >= minor
}

// minorNames lists python3.N from the newest down to the given minor version.
func minorNames(from int) (out []string) {
	for n := newest; n >= max(from, 6); n-- {
		out = append(out, "python3."+strconv.Itoa(n))
	}
	return out
}

// firstPython probes the names in order.
func (d *drive) firstPython(ctx context.Context, names []string) (Interpreter, error) {
	for _, name := range names {
		path, err := d.cfg.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "-I", "-c", probe).Output()
		if ctx.Err() != nil {
			return Interpreter{}, ctx.Err()
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil || len(lines) != 3 || !filepath.IsAbs(lines[0]) {
			continue // a launcher without an interpreter behind it
		}
		return Interpreter{Path: lines[0], Version: lines[1], Prefix: lines[2]}, nil
	}
	return Interpreter{}, nil
}

// installSteps are the commands that make the virtual environment: with uv
// where it is found, else with venv and pip. What has to move for the GPU model is given to uv as overrides, and written
// into what pip reads.
func (d *drive) installSteps(py Interpreter, args []string, m *moves) ([]Attempt, []spec.Deviation, error) {
	index, devs := d.indexes()
	more, find, found := stated(&d.plan.Environment, m)
	index, devs = append(index, more...), append(devs, found...)
	uv, err := d.cfg.LookPath("uv")
	if err == nil {
		uv, err = filepath.EvalSymlinks(uv)
	}
	hasUV := err == nil
	venvPython := filepath.Join(d.venv(), "bin", "python")
	var create, install []string
	if hasUV {
		create = []string{uv, "venv", "--no-config", "--allow-existing", "--python", py.Path, d.venv()}
		install = []string{uv, "pip", "install", "--no-config", "--python", venvPython}
		if len(m.pins) > 0 {
			file := filepath.Join(d.cache(), "overrides.txt")
			if err := os.WriteFile(file, []byte(m.overrides()), 0o644); err != nil {
				return nil, nil, fmt.Errorf("write overrides: %w", err)
			}
			install = append(install, "--override", file)
		}
		if t := d.plan.Environment.ExcludeNewer; t != nil && m.newer {
			devs = append(devs, spec.Deviation{What: "exclude_newer", Declared: t.UTC().Format("2006-01-02"), Used: "none",
				Reason: "what has to move for " + d.plan.Environment.SKU + " is newer"})
		} else if t != nil {
			install = append(install, "--exclude-newer", t.UTC().Format("2006-01-02T15:04:05Z"))
		}
	} else {
		if args, err = m.apply(d.work(), args); err != nil {
			return nil, nil, err
		}
		create = []string{py.Path, "-m", "venv", d.venv()}
		install = []string{venvPython, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"}
		if t := d.plan.Environment.ExcludeNewer; t != nil {
			devs = append(devs, spec.Deviation{What: "exclude_newer", Declared: t.UTC().Format("2006-01-02"), Used: "none",
				Reason: "pip cannot leave out newer releases; uv, which can, was not found"})
		}
	}
	if pins := pip.Pins(d.req.Lock); len(pins) > 0 {
		file := filepath.Join(d.cache(), "lock.txt")
		if err := os.WriteFile(file, []byte(strings.Join(pins, "\n")+"\n"), 0o644); err != nil {
			return nil, nil, fmt.Errorf("write lock: %w", err)
		}
		install = append(install, "--constraint", file)
	}
	for _, f := range find {
		install = append(install, "--find-links", f)
	}
	install = append(install, args...)
	env := d.installEnv(index)
	if len(more) > 0 {
		env["UV_INDEX_STRATEGY"] = "unsafe-best-match" // as pip does, which repositories write for
	}
	readOnly := d.readOnly(py)
	if hasUV {
		readOnly = append(readOnly, uv)
	}
	for _, name := range []string{"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"} {
		if p := d.cfg.Getenv(name); filepath.IsAbs(p) && exists(p) {
			readOnly = append(readOnly, filepath.Clean(p))
		}
	}
	hosts := slices.Clone(d.cfg.IndexHosts)
	for _, u := range index {
		hosts = append(hosts, pip.Hosts(u)...)
	}
	for _, f := range find {
		if u, err := url.Parse(f); err == nil {
			hosts = append(hosts, pip.Hosts(u)...)
		}
	}
	base := Attempt{
		Key: AttemptKey{RunID: d.run.ID, Stage: StagePrepare}, Dir: d.work(), Env: env,
		Writable: []string{d.work(), d.venv(), d.cache()}, ReadOnly: readOnly, Limits: d.cfg.Limits, NoSandbox: d.req.NoSandbox,
	}
	first, second := base, base
	first.Key.Arm, first.Argv = "venv", create
	second.Key.Arm, second.Argv, second.Network = "install", install, Network{Hosts: hosts}
	return []Attempt{first, second}, devs, nil
}

var installedRE = regexp.MustCompile(`^([A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?)-([0-9][A-Za-z0-9._+!]*)\.dist-info$`)

// installed lists what lies in a virtual environment, one "name==version" a
// line, by the names of the folders that installers leave: nothing in it is read.
func installed(venv string) (string, error) {
	var list []string
	dirs, err := filepath.Glob(filepath.Join(venv, "lib", "python*", "site-packages", "*.dist-info"))
	if err != nil {
		return "", fmt.Errorf("list installed packages: %w", err)
	}
	for _, dir := range dirs {
		if m := installedRE.FindStringSubmatch(filepath.Base(dir)); m != nil {
			list = append(list, pip.Normalise(m[1])+"=="+m[2]+"\n")
		}
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ""), nil
}

// readOnly are the places outside the run's folder that Python needs.
func (d *drive) readOnly(py Interpreter) (out []string) {
	for _, p := range []string{py.Prefix, py.Path, d.bin()} {
		// Every sandbox shows /usr.
		if p = filepath.Clean(p); filepath.IsAbs(p) && p != "/" && p != "/usr" && !strings.HasPrefix(p, "/usr/") && exists(p) {
			out = append(out, p)
		}
	}
	return out
}

// indexes are the package indexes in force, without credentials.
func (d *drive) indexes() ([]*url.URL, []spec.Deviation) {
	list := d.cfg.Indexes
	for _, names := range [][]string{
		{"UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"},
		{"UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"},
	} {
		for _, n := range names {
			if v := d.cfg.Getenv(n); v != "" && len(d.cfg.Indexes) == 0 {
				list = append(list, strings.Fields(v)...)
				break
			}
		}
	}
	return pip.Indexes(list)
}

// installEnv is the whole environment of an installer: index, certificates,
// and a cache of this run's own, since packages can write to it.
func (d *drive) installEnv(index []*url.URL) map[string]string {
	env := map[string]string{
		"PIP_CONFIG_FILE": os.DevNull, "PIP_INDEX_URL": index[0].String(), "UV_DEFAULT_INDEX": index[0].String(),
		"UV_CACHE_DIR": d.cache(), "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1", "PIP_RETRIES": "2",
		"PYTHONUNBUFFERED": "1", "PIP_PROGRESS_BAR": "off",
	}
	if index[0].Scheme == "http" { // the user's own choice
		env["PIP_TRUSTED_HOST"] = index[0].Host
	}
	var extra []string
	for _, u := range index[1:] {
		extra = append(extra, u.String())
	}
	if len(extra) > 0 {
		env["PIP_EXTRA_INDEX_URL"], env["UV_INDEX"] = strings.Join(extra, " "), strings.Join(extra, " ")
	}
	for _, name := range []string{"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT"} {
		if v := d.cfg.Getenv(name); v != "" {
			env[name] = v
		}
	}
	return env
}

// installFailure says why an installation did not end well, in the installer's
// own words where it has any.
func installFailure(st Status) string {
	said := pip.Complaint(tailLines(st.Stderr, 64<<10))
	if said == "" {
		return failure(st)
	}
	return statusWords(st) + ": " + said
}
