package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/python"
)

// reader is the bounded way into one checkout.
type reader struct {
	ctx   context.Context
	root  *os.Root
	cfg   Config
	left  int64 // bytes that may still be read
	facts *Facts
}

// NotADirError says that the checkout is no readable directory.
type NotADirError struct {
	Path string
	Err  error
}

func (e *NotADirError) Error() string {
	return fmt.Sprintf("open checkout %s: %v; name a directory that exists and can be read", e.Path, e.Err)
}

// UserError returns what to do about it.
func (e *NotADirError) UserError() string { return "name a directory that exists and can be read" }

func (e *NotADirError) Unwrap() error { return e.Err }

func open(ctx context.Context, dir string, cfg Config) (*reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &NotADirError{Path: dir, Err: err}
	}
	return &reader{ctx: ctx, root: root, cfg: cfg, left: cfg.MaxTotalBytes, facts: &Facts{cells: map[string]string{}}}, nil
}

func (r *reader) close() { _ = r.root.Close() }

// skipDir are directories that hold no work of the repository's authors.
var skipDir = map[string]bool{
	".git": true, "node_modules": true, "__pycache__": true, ".venv": true, "venv": true, "site-packages": true,
	".tox": true, ".mypy_cache": true, ".pytest_cache": true, ".ipynb_checkpoints": true, ".eggs": true,
}

func (r *reader) walk() error {
	err := fs.WalkDir(r.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == "." {
				return err
			}
			r.facts.warn("unreadable", fmt.Sprintf("%s cannot be read: %v", p, err))
			return fs.SkipDir
		}
		if d.IsDir() {
			if p != "." && skipDir[d.Name()] {
				return fs.SkipDir
			}
			return r.ctx.Err()
		}
		if len(r.facts.Files) >= r.cfg.MaxFiles {
			r.facts.Truncated = true
			return fs.SkipAll
		}
		f := File{Path: p, Link: d.Type()&fs.ModeSymlink != 0}
		if !d.Type().IsRegular() && !f.Link {
			return nil
		}
		if !f.Link {
			info, err := d.Info()
			if err != nil {
				return nil // removed while walking
			}
			f.Size = info.Size()
		}
		r.facts.Files = append(r.facts.Files, f)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list checkout: %w", err)
	}
	if r.facts.Truncated {
		r.facts.warn("too_many_files", fmt.Sprintf("only the first %d files were listed", r.cfg.MaxFiles))
	}
	r.facts.buildIndex()
	return nil
}

// errBudget says that the bytes for this checkout are used up.
var errBudget = errors.New("byte budget of the checkout is used up")

// bytes reads at most limit bytes of a regular file; cut says that it holds more.
func (r *reader) bytes(p string, limit int64) (b []byte, cut bool, err error) {
	if err := r.ctx.Err(); err != nil {
		return nil, false, err
	}
	if r.left <= 0 {
		return nil, false, errBudget
	}
	// O_NONBLOCK: opening a pipe that took the file's place must not hang.
	f, err := r.root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s is not a regular file", p)
	}
	limit = min(limit, r.left)
	b = make([]byte, 0, min(info.Size(), limit)+512)
	b, err = appendAll(b, io.LimitReader(f, limit+1))
	if int64(len(b)) > limit {
		b, cut = b[:limit], true
	}
	r.left -= int64(len(b))
	return b, cut, err
}

func appendAll(b []byte, rd io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := rd.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// text reads a file as UTF-8 text. A file that cannot be read gives a warning
// and ok false; only cancellation is an error.
func (r *reader) text(p string) (s string, ok bool, err error) {
	b, cut, err := r.bytes(p, r.cfg.MaxFileBytes)
	if err != nil {
		if ctxErr := r.ctx.Err(); ctxErr != nil {
			return "", false, ctxErr
		}
		r.facts.warn("unreadable", fmt.Sprintf("%s cannot be read: %v", p, err))
		return "", false, nil
	}
	if cut {
		r.facts.warn("cut_off", fmt.Sprintf("%s is longer than %d bytes; the rest was not read", p, len(b)))
	}
	return Decode(b), true, nil
}

// Decode turns the bytes of a text file into UTF-8: by byte order mark, then
// UTF-16 without a mark where every other byte is zero, then UTF-8, and
// ISO 8859-1 for what is not valid UTF-8.
func Decode(b []byte) string {
	switch {
	case len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF:
		b = b[3:]
	case len(b) >= 2 && b[0] == 0xFF && b[1] == 0xFE:
		return decode16(b[2:], 1)
	case len(b) >= 2 && b[0] == 0xFE && b[1] == 0xFF:
		return decode16(b[2:], 0)
	}
	if zeros(b, 1) {
		return decode16(b, 1)
	}
	if zeros(b, 0) {
		return decode16(b, 0)
	}
	if utf8.Valid(b) {
		return string(b)
	}
	// a cut may have split the last character
	for n := 1; n < utf8.UTFMax && n < len(b); n++ {
		if utf8.Valid(b[:len(b)-n]) {
			return string(b[:len(b)-n])
		}
	}
	out := make([]rune, len(b))
	for i, c := range b {
		out[i] = rune(c)
	}
	return string(out)
}

// zeros says whether nearly all bytes at the given parity are zero, as in
// UTF-16 text of a Latin script.
func zeros(b []byte, parity int) bool {
	b = b[:min(len(b), 512)]
	if len(b) < 8 {
		return false
	}
	n := 0
	for i := parity; i < len(b); i += 2 {
		if b[i] == 0 {
			n++
		}
	}
	return n*10 >= len(b)/2*9
}

// decode16 reads UTF-16; high is the index of the more significant byte.
func decode16(b []byte, high int) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = uint16(b[2*i+high])<<8 | uint16(b[2*i+1-high])
	}
	return string(utf16.Decode(u))
}

// Bounds on how many files of a kind are read.
const (
	maxDocs         = 1500
	maxScripts      = 3000
	maxNotebooks    = 60
	maxDependencies = 400
	maxResults      = 60
)

// byDepth returns the paths that keep accepts, nearest to the root first.
func (r *reader) byDepth(limit int, keep func(p, base, ext string) bool) []string {
	var out []string
	for _, f := range r.facts.Files {
		if !f.Link && keep(f.Path, path.Base(f.Path), strings.ToLower(path.Ext(f.Path))) {
			out = append(out, f.Path)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return depth(out[i]) < depth(out[j]) })
	if len(out) > limit {
		out = out[:limit]
	}
	return out
}

func depth(p string) int { return strings.Count(p, "/") }

func (r *reader) docs() error {
	paths := r.byDepth(maxDocs, func(p, base, ext string) bool {
		switch ext {
		case ".md", ".rst", ".markdown", ".mdx":
			return true
		case ".txt", "":
			return strings.HasPrefix(strings.ToLower(base), "readme") || strings.HasPrefix(strings.ToLower(base), "install")
		case ".yml", ".yaml":
			return strings.HasPrefix(p, ".github/workflows/")
		}
		return false
	})
	for _, p := range paths {
		src, ok, err := r.text(p)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		d := Document{Path: p}
		if strings.HasPrefix(p, ".github/workflows/") {
			d.CI = true
			d.Doc = workflow(src)
		} else {
			d.Doc = markdown.Scan(src)
			if isReadme(p) && (r.facts.Readme == "" || better(p, r.facts.Readme)) {
				r.facts.Readme = p
			}
		}
		d.Commands, d.Outputs = d.Doc.Shell(nil)
		r.facts.Docs = append(r.facts.Docs, d)
	}
	return nil
}

func isReadme(p string) bool {
	return depth(p) == 0 && strings.HasPrefix(strings.ToLower(path.Base(p)), "readme")
}

// better prefers README.md over README.rst over others, and English.
func better(a, b string) bool { return readmeRank(a) < readmeRank(b) }

func readmeRank(p string) int {
	switch strings.ToLower(p) {
	case "readme.md":
		return 0
	case "readme.rst":
		return 1
	case "readme", "readme.txt":
		return 2
	}
	return 3
}

func (r *reader) scripts() error {
	paths := r.byDepth(maxScripts, func(_, base, ext string) bool {
		return ext == ".sh" || ext == ".bash" || ext == ".slurm" || ext == ".sbatch" || base == "Makefile" || base == "makefile"
	})
	for _, p := range paths {
		src, ok, err := r.text(p)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		s := Script{Path: p, Interpreter: "bash", Text: src}
		if strings.HasPrefix(src, "#!/bin/sh") {
			s.Interpreter = "sh"
		}
		if base := path.Base(p); base == "Makefile" || base == "makefile" {
			s.Interpreter = "make"
		}
		s.Commands = markdown.Shell(src)
		r.facts.Scripts = append(r.facts.Scripts, s)
	}
	return nil
}

// maxSettings bounds how many settings files are read.
const maxSettings = 400

var settingRE = regexp.MustCompile(`^\s*([\w.\-]+)\s*:\s*['"]?(/[A-Za-z][\w.\-]*/[^'"#\s]*)`)

// settings reads the YAML files for values that are paths of the authors'
// machine.
func (r *reader) settings() error {
	r.facts.Settings, r.facts.options, r.facts.comments = map[string][]Setting{}, map[string][]Option{}, map[string][]python.Literal{}
	paths := r.byDepth(maxSettings, func(p, _, ext string) bool {
		return (ext == ".yaml" || ext == ".yml") && r.facts.Size(p) < 64<<10 && !strings.HasPrefix(p, ".")
	})
	for _, p := range paths {
		src, ok, err := r.text(p)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		r.facts.options[p] = options(p, src)
		if c := comments(src); len(c) > 0 {
			r.facts.comments[p] = c
		}
		for i, l := range strings.Split(src, "\n") {
			if m := settingRE.FindStringSubmatch(l); m != nil && !strings.HasPrefix(m[2], "/tmp/") && !strings.HasPrefix(m[2], "/dev/") {
				r.facts.Settings[p] = append(r.facts.Settings[p], Setting{Key: m[1], Value: m[2], Line: i + 1})
			}
		}
	}
	return nil
}

// results reads small committed JSON files that may hold results.
func (r *reader) results() error {
	paths := r.byDepth(maxResults, func(p, base, ext string) bool {
		l := strings.ToLower(p)
		return ext == ".json" && r.facts.Size(p) < 256<<10 &&
			(strings.Contains(l, "metric") || strings.Contains(l, "result") || strings.Contains(l, "expected") || strings.Contains(l, "score") || strings.Contains(l, "summary"))
	})
	for _, p := range paths {
		b, cut, err := r.bytes(p, 256<<10)
		if ctxErr := r.ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		if err == nil && !cut {
			r.facts.Results = append(r.facts.Results, Result{Path: p, Data: b})
		}
	}
	return nil
}
