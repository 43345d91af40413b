package image

import (
	"bytes"
	"context"
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image/problem"
)

// missingLibraries lists the shared libraries that installed extensions ask
// for and nobody has: neither the environment nor the base. An environment that
// lacks one installs well and fails at the first import.
func (j *job) missingLibraries(ctx context.Context) ([]string, error) {
	needed, have := map[string]bool{}, map[string]bool{}
	for _, dir := range []string{"env", "python"} {
		err := filepath.WalkDir(filepath.Join(j.dir, dir), func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil || ctx.Err() != nil:
				return ctx.Err() // a folder that cannot be read has nothing to say
			case e.IsDir() && e.Name() == cacheName:
				return fs.SkipDir
			case e.Type().IsRegular() && strings.Contains(e.Name(), ".so"):
				have[e.Name()] = true
				for _, n := range elfNeeds(path) {
					needed[n] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var out []string
	for n := range needed {
		if _, known := problem.Soname(n); known && !have[n] {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	base, err := j.b.baseLibraries(ctx, j.base)
	if err != nil {
		return nil, err
	}
	out = slices.DeleteFunc(out, func(n string) bool { return base[n] })
	slices.Sort(out)
	return out, nil
}

// elfNeeds is the DT_NEEDED list of a shared object; nothing for what is none.
func elfNeeds(path string) []string {
	info, err := os.Lstat(path)
	if err != nil || info.Size() > 4<<30 {
		return nil
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, _ := f.ImportedLibraries()
	return list
}

const librariesScript = `for d in /lib /usr/lib /lib64 /usr/lib64 /usr/local/lib /usr/local/cuda/lib64 /lib/*-linux-gnu /usr/lib/*-linux-gnu; do ls "$d" 2>/dev/null; done; exit 0`

var sonameRE = regexp.MustCompile(`(?m)^(lib\S+\.so[.0-9]*)\s*$`)

// baseLibraries lists the shared libraries of an image.
func (b *Builder) baseLibraries(ctx context.Context, bs *base) (map[string]bool, error) {
	id, err := b.inEngine(ctx, bs)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = b.run(ctx, engine.Container{Image: id, Entrypoint: []string{"/bin/sh", "-c", librariesScript}, Network: "none", Labels: map[string]string{LabelBuild: "probe"}}, &out)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, m := range sonameRE.FindAllStringSubmatch(out.String(), -1) {
		have[m[1]] = true
	}
	return have, nil
}

// addLibraries adds the packages of the missing libraries to the image.
func (j *job) addLibraries(names []string) bool {
	added := false
	for _, n := range names {
		pkg, ok := problem.Soname(n)
		if !ok || !j.st.once("library "+pkg) {
			continue
		}
		j.st.packages = append(j.st.packages, pkg)
		j.st.deviate("system package", "none", pkg, "an installed extension needs "+n+", which the base image does not have")
		added = true
	}
	return added
}
