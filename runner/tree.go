package runner

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// mismatch says that a patch does not fit the file; it is an outcome.
type mismatch string

func (m mismatch) Error() string { return string(m) }

// applyPatch replaces one line. Before must be exactly what stands on that
// line, without the line's end; without a line number it must stand on exactly
// one line. Patches of flags and environment are in the plan's argv and env
// and change no file.
func applyPatch(dir string, p spec.Patch) error {
	if !changesFile(p) {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	defer root.Close()
	lines, at, mode, err := locate(root, p)
	if err != nil {
		return err
	}
	end := lines[at][len(bytes.TrimRight(lines[at], "\r\n")):]
	lines[at] = append([]byte(p.After), end...)
	// A file of its own, renamed over the old one, so that a second name of
	// the old file keeps the old content.
	name := filepath.FromSlash(p.File)
	if err := root.WriteFile(name+tmpSuffix, bytes.Join(lines, nil), mode); err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	if err := root.Rename(name+tmpSuffix, name); err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	return nil
}

// fits reports whether a patch could be applied, as a mismatch when not.
func fits(dir string, p spec.Patch) error {
	if !changesFile(p) {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	defer root.Close()
	_, _, _, err = locate(root, p)
	return err
}

func changesFile(p spec.Patch) bool { return p.File != "" && p.Kind != "flag" && p.Kind != "env" }

// locate reads the file in lines and finds the one that the patch names.
func locate(root *os.Root, p spec.Patch) (lines [][]byte, at int, mode fs.FileMode, err error) {
	name := filepath.FromSlash(p.File)
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, 0, 0, mismatch(fmt.Sprintf("the patch of %s does not fit: there is no such file", p.File))
	}
	body, err := root.ReadFile(name)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("patch: %w", err)
	}
	lines = bytes.SplitAfter(body, []byte("\n"))
	at, err = patchLine(lines, p)
	return lines, at, info.Mode().Perm(), err
}

func patchLine(lines [][]byte, p spec.Patch) (int, error) {
	text := func(i int) string { return strings.TrimRight(string(lines[i]), "\r\n") }
	if p.Line > 0 {
		switch {
		case p.Line > len(lines):
			return 0, mismatch(fmt.Sprintf("the patch of %s:%d does not fit: the file has %d lines", p.File, p.Line, len(lines)))
		case text(p.Line-1) != p.Before:
			return 0, mismatch(fmt.Sprintf("the patch of %s:%d does not fit: expected %q, found %q", p.File, p.Line, p.Before, text(p.Line-1)))
		}
		return p.Line - 1, nil
	}
	found := -1
	for i := range lines {
		if text(i) != p.Before {
			continue
		}
		if found >= 0 {
			return 0, mismatch(fmt.Sprintf("the patch of %s does not fit: %q stands on the lines %d and %d", p.File, p.Before, found+1, i+1))
		}
		found = i
	}
	if found < 0 {
		return 0, mismatch(fmt.Sprintf("the patch of %s does not fit: no line is %q", p.File, p.Before))
	}
	return found, nil
}
