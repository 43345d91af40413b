package cli

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/runner/store"
)

// folderSettings are the settings that name the folders we write to, with the
// variables that set them.
var folderSettings = [...]struct{ key, env string }{
	{"paths.cache", "REPROMILL_CACHE"}, {"paths.state", "REPROMILL_STATE"}, {"paths.results", "REPROMILL_RESULTS"},
}

// explain gives an error its remedy where a folder of the user's is at fault.
func (a *app) explain(err error) error {
	var user interface{ UserError() string }
	var file *store.FileError
	if errors.As(err, &file) {
		return &userError{err.Error(), "paths.state (REPROMILL_STATE) names its folder"}
	}
	if err == nil || a.cfg == nil || errors.As(err, &user) {
		return err
	}
	full, denied := false, false
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		full = full || is(err, errno)
	}
	for _, errno := range []syscall.Errno{syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.ENOTDIR} {
		denied = denied || is(err, errno)
	}
	for _, f := range folderSettings {
		dir := a.cfg.String(f.key)
		named := strings.Contains(err.Error(), dir) || underFile(err, dir)
		switch {
		case dir == "" || !named:
		case full:
			return &userError{err.Error(), "free some space, or set " + f.key + " (" + f.env + ") to a folder with more; what was finished is kept"}
		case denied:
			return &userError{err.Error(), "set " + f.key + " (" + f.env + ") to a folder that can be written"}
		}
	}
	if dir := a.cfg.String("cluster.volume"); full && dir != "" && strings.Contains(err.Error(), dir) {
		return &userError{err.Error(), "make room on the cluster's volume, and take the run up again; what was finished is kept"}
	}
	return err
}

// is reports an error of the system, also where it came as text from one of
// our own processes.
func is(err error, errno syscall.Errno) bool {
	return errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error())
}

// underFile reports whether the path that err complains of is a parent of dir.
func underFile(err error, dir string) bool {
	var path *fs.PathError
	return errors.As(err, &path) && strings.HasPrefix(dir, path.Path+string(os.PathSeparator))
}

// checkFolder makes sure, before work begins whose results go there, that a
// folder can be written.
func (a *app) checkFolder(key string) error {
	dir := a.cfg.String(key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &fs.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}
