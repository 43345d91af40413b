package pip

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Line is one requirement with the place it stands at.
type Line struct {
	Text string // PEP 508, or a URL; for an editable one its path below the checkout, with extras
	Name string // normalised as in PEP 503; empty where only a path or URL is given
	File string // below the checkout; empty for a line of the plan itself
	At   int    // 1-based line in File
	Edit bool   // install from the checkout, so that the code is used in place
	// Conda says that a conda environment lists it, whose channels have more
	// than packages for Python.
	Conda bool
}

// Where is "file:line", or "the plan".
func (l Line) Where() string {
	if l.File == "" {
		return "the plan"
	}
	if l.At == 0 {
		return l.File
	}
	return fmt.Sprintf("%s:%d", l.File, l.At)
}

// Inputs are everything that decides what is installed.
type Inputs struct {
	Lines       []Line
	Constraints []Line            // from -c files
	Locked      []Line            // every version that a lock file fixes
	LockFile    string            // below the checkout, empty without one
	Pre         bool              // --pre stands in a file
	Files       map[string]string // what decides how projects of the checkout are built, with its SHA-256
	Deviations  []spec.Deviation
	Conda       *Conda // a conda environment beside Lines; nil without one
}

// UnreadableError is a dependency file that cannot be used.
type UnreadableError struct{ File, Why string }

func (e *UnreadableError) Error() string { return e.File + ": " + e.Why }

const (
	maxFile  = 4 << 20 // bytes of one dependency file
	maxDepth = 8       // files including files
	maxLines = 20_000
)

type reader struct {
	fsys fs.FS
	in   *Inputs
	seen map[string]bool // requirements files
}

// Read lists what a plan's requirements come to: files are followed, options
// that point the installer elsewhere are left out, and paths of the machine on
// which a list was frozen are turned back into the packages they were.
// fsys is the checkout; it must not follow links out of it (os.Root.FS).
func Read(fsys fs.FS, env spec.Environment) (*Inputs, error) {
	want, why := Parse(env.Requirements)
	if why != "" {
		return nil, &UnreadableError{"the plan", why}
	}
	r := &reader{fsys, &Inputs{Files: map[string]string{}}, map[string]bool{}}
	for i := 0; i < len(want.Args); i++ {
		switch a := want.Args[i]; a {
		case "-r":
			i++
			if err := r.file(path.Clean(filepath.ToSlash(want.Args[i])), false, 0); err != nil {
				return nil, err
			}
		case "-e":
			i++
			if err := r.editable(want.Args[i], "", 0); err != nil {
				return nil, err
			}
		default:
			r.add(written(a, env.Requirements), false)
		}
	}
	if want.Conda != "" {
		if err := r.conda(path.Clean(filepath.ToSlash(want.Conda))); err != nil {
			return nil, err
		}
	}
	if err := r.lock(env.DependencySources); err != nil {
		return nil, err
	}
	if len(r.in.Lines) == 0 && r.in.Conda == nil {
		r.in.Lines = slices.Clone(r.in.Locked)
	}
	return r.in, nil
}

// written is a requirement with the place that the plan read it at.
func written(text string, list []spec.Requirement) Line {
	l := Line{Text: text}
	for _, q := range list {
		if strings.TrimSpace(q.Spec) == text && len(q.Evidence) > 0 {
			l.File, l.At = q.Evidence[0].File, q.Evidence[0].Line
		}
	}
	return l
}

// bytes reads a small file.
func (r *reader) bytes(name string) ([]byte, error) {
	f, err := r.fsys.Open(name)
	if err != nil {
		why := "it cannot be read"
		if errors.Is(err, fs.ErrNotExist) {
			why = "there is no such file in the checkout"
		}
		return nil, &UnreadableError{name, why}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, &UnreadableError{name, err.Error()}
	}
	if len(b) > maxFile {
		return nil, &UnreadableError{name, "it is larger than 4 MiB"}
	}
	return b, nil
}

// keep remembers the digest of a file that decides how a project is built.
func (r *reader) keep(name string) error {
	b, err := r.bytes(name)
	if err == nil {
		sum := sha256.Sum256(b)
		r.in.Files[name] = hex.EncodeToString(sum[:])
	}
	return err
}

// file reads a requirements file (pip's "Requirements File Format").
func (r *reader) file(name string, constraint bool, depth int) error {
	if r.seen[name] {
		return nil
	}
	r.seen[name] = true
	if depth > maxDepth {
		return &UnreadableError{name, "files include each other too deeply"}
	}
	if !fs.ValidPath(name) {
		return &UnreadableError{name, "it leaves the checkout"}
	}
	b, err := r.bytes(name)
	if err != nil {
		return err
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(b, []byte("\xff\xfe")) {
		b = narrow(b[2:]) // PowerShell's `pip freeze >` writes UTF-16
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxFile)
	text, at := "", 0
	for n := 1; sc.Scan(); n++ {
		s := strings.TrimRight(sc.Text(), " \t\r")
		if text == "" {
			at = n
		}
		if rest, ok := strings.CutSuffix(s, `\`); ok {
			text += rest + " "
			continue
		}
		if err := r.line(text+s, name, at, constraint, depth); err != nil {
			return err
		}
		text = ""
	}
	if err := sc.Err(); err != nil {
		return &UnreadableError{name, err.Error()}
	}
	return r.line(text, name, at, constraint, depth)
}

// narrow turns UTF-16LE of ASCII into bytes; whatever else becomes "?".
func narrow(b []byte) []byte {
	out := make([]byte, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		c := b[i]
		if b[i+1] != 0 {
			c = '?'
		}
		out = append(out, c)
	}
	return out
}

var (
	commentRE = regexp.MustCompile(`(^|\s)#.*$`)
	optionRE  = regexp.MustCompile(`^(--?[A-Za-z][A-Za-z-]*)(?:[= \t]\s*(.*))?$`)
	shortRE   = regexp.MustCompile(`^(-[reci])(\S.*)$`) // "-rfile"
	nameRE    = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*(.*)$`)
	fileURLRE = regexp.MustCompile(`^@\s*file://`)
	condaRE   = regexp.MustCompile(`^=([0-9][^=\s;]*)(=\S*)?$`) // "numpy=1.21.2=py39h20f2e39_0"
)

func (r *reader) line(s, file string, at int, constraint bool, depth int) error {
	s = strings.TrimSpace(commentRE.ReplaceAllString(s, ""))
	if m := shortRE.FindStringSubmatch(s); m != nil && s[1] != '-' {
		s = m[1] + " " + m[2]
	}
	if s == "" {
		return nil
	}
	if len(r.in.Lines)+len(r.in.Constraints) > maxLines {
		return &UnreadableError{file, "it lists too much"}
	}
	m := optionRE.FindStringSubmatch(s)
	if m == nil && s[0] == '-' {
		return &UnreadableError{fmt.Sprintf("%s:%d", file, at), fmt.Sprintf("%q is no option of an installer", s)}
	}
	if m == nil {
		r.add(Line{Text: s, File: file, At: at}, constraint)
		return nil
	}
	value := strings.Trim(strings.TrimSpace(m[2]), `"'`)
	switch m[1] {
	case "-r", "--requirement":
		return r.file(path.Join(path.Dir(file), value), constraint, depth+1)
	case "-c", "--constraint":
		return r.file(path.Join(path.Dir(file), value), true, depth+1)
	case "-e", "--editable":
		return r.editable(value, file, at)
	case "--pre":
		r.in.Pre = true
	}
	// Indexes are the plan's to name; the other options change nothing that is
	// installed.
	return nil
}

// Normalise is a distribution's name as PEP 503 compares it.
func Normalise(name string) string {
	return strings.ToLower(strings.Trim(separators.ReplaceAllString(name, "-"), "-"))
}

var separators = regexp.MustCompile(`[-_.]+`)

func (r *reader) add(l Line, constraint bool) {
	l.Text = strings.TrimSpace(hashRE.ReplaceAllString(l.Text, ""))
	if m := nameRE.FindStringSubmatch(l.Text); m != nil && !strings.Contains(m[1], "/") && !r.local(l.Text) {
		l.Name = Normalise(m[1])
		rest := strings.TrimSpace(m[3])
		switch c := condaRE.FindStringSubmatch(rest); {
		case fileURLRE.MatchString(rest):
			r.deviate(l, m[1]+m[2], "it was frozen from a file of another machine, which has no version in the list")
			l.Text = m[1] + m[2]
		case c != nil && c[2] != "=pypi_0" && c[2] != "":
			r.deviate(l, m[1]+"=="+c[1], "conda's way to write a version, with its own build")
			l.Text = m[1] + "==" + c[1]
		case c != nil:
			l.Text = m[1] + "==" + c[1]
		case strings.HasPrefix(rest, "+") || strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, "/"):
			l.Name = "" // a URL such as git+https://…
		}
	}
	if constraint {
		r.in.Constraints = append(r.in.Constraints, l)
		return
	}
	if l.Name == "" && r.local(l.Text) {
		if r.editable(l.Text, l.File, l.At) == nil {
			return
		}
	}
	r.in.Lines = append(r.in.Lines, l)
}

var hashRE = regexp.MustCompile(`\s--hash[= ]\S+`)

func (r *reader) local(s string) bool {
	return s == "." || strings.HasPrefix(s, "./") || strings.HasPrefix(s, ".[")
}

func (r *reader) deviate(l Line, used, why string) {
	r.in.Deviations = append(r.in.Deviations, spec.Deviation{What: l.Name, Declared: l.Text + " (" + l.Where() + ")", Used: used, Reason: why})
}

// editable adds a project of the checkout. A path in a file is one below the
// checkout's root, as for pip called there, or below the file's folder.
func (r *reader) editable(s, file string, at int) error {
	if strings.Contains(s, "://") || strings.HasPrefix(s, "git+") {
		r.add(Line{Text: s, File: file, At: at}, false)
		return nil
	}
	dir, extras, _ := strings.Cut(s, "[")
	dir = path.Clean(filepath.ToSlash(strings.TrimSpace(dir)))
	for _, try := range []string{dir, path.Join(path.Dir(file), dir)} {
		if !fs.ValidPath(try) || !r.project(try) {
			continue
		}
		if extras != "" {
			try += "[" + extras
		}
		r.in.Lines = append(r.in.Lines, Line{Text: try, File: file, At: at, Edit: true})
		return nil
	}
	return &UnreadableError{(Line{File: file, At: at}).Where(), fmt.Sprintf("%q is no project of the checkout (it has no pyproject.toml or setup.py)", s)}
}

// sources are what a build of a project reads beside its Python code.
var sources = []string{".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".pyx", ".pxd", ".pxi", ".rs", ".f", ".f90", ".in"}

// project takes the digest of all that decides how a project is built: its
// declarations, compiled sources and the names of its packages. Its Python
// code is used in place and decides nothing.
func (r *reader) project(dir string) bool {
	found := false
	for _, name := range []string{"pyproject.toml", "setup.py", "setup.cfg"} {
		if r.keep(path.Join(dir, name)) == nil {
			found = found || name != "setup.cfg"
		}
	}
	if !found {
		return false
	}
	var packages []string
	err := fs.WalkDir(r.fsys, dir, func(p string, e fs.DirEntry, err error) error {
		base := path.Base(p)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			if p != dir && strings.HasPrefix(base, ".") {
				return fs.SkipDir
			}
		case base == "__init__.py":
			packages = append(packages, path.Dir(p))
		case slices.Contains(sources, path.Ext(base)) || base == "CMakeLists.txt" || base == "meson.build" || base == "Cargo.toml":
			err := r.keep(p)
			var large *UnreadableError
			if err != nil && !errors.As(err, &large) {
				return err
			}
		}
		return nil
	})
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n")))
	r.in.Files[path.Join(dir, "packages")+"/"] = hex.EncodeToString(sum[:])
	return err == nil
}
