package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// File is one file of a checkpoint.
type File struct {
	Name   string
	SHA256 string
	Bytes  int64
}

// read by engines: weights, configuration, tokenizers, templates, and the code
// that some models bring.
var checkpointFiles = []string{".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt", ".bin", ".pt", ".pth", ".gguf", ".py"}

// Checkpoint names a model's folder by the files at its top that an engine may
// read, written as [Of] writes a folder. A card, pictures and hidden files do not
// count. Links are followed, as the hub's own cache consists of them.
func Checkpoint(ctx context.Context, dir string, cfg Config) (Sum, []File, error) {
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return Sum{}, nil, &Error{dir, "cannot be read: " + cause(err), "name a folder with config.json and safetensors that you may read"}
	}
	var files []File
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains(checkpointFiles, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		if info, err := os.Stat(path); err != nil {
			return Sum{}, nil, unreadable(path, err)
		} else if info.Mode().IsRegular() {
			files = append(files, File{Name: e.Name()})
		}
	}
	if len(files) == 0 {
		return Sum{}, nil, &Error{dir, "holds no file of a model", "name a folder with config.json and safetensors"}
	}
	w := &walk{ctx: ctx, cfg: cfg, name: dir}
	sem := make(chan struct{}, w.workers())
	errs := make([]error, len(files))
	var wg sync.WaitGroup
	for i := range files {
		wg.Go(func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			files[i], errs[i] = w.one(filepath.Join(dir, files[i].Name))
		})
	}
	wg.Wait()
	list := sha256.New()
	sum := Sum{Folder: true}
	for i, f := range files {
		if errs[i] != nil {
			return Sum{}, nil, errs[i]
		}
		_, _ = io.WriteString(list, line(f.SHA256, f.Name)) // a hash takes everything
		sum.Files++
		sum.Bytes += f.Bytes
	}
	sum.SHA256 = hex.EncodeToString(list.Sum(nil))
	return sum, files, nil
}

// one names one file, whatever links lead to it.
func (w *walk) one(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, unreadable(path, err)
	}
	defer f.Close()
	out := File{Name: filepath.Base(path)}
	if out.SHA256, err = w.file(path, f, make([]byte, bufferBytes)); err != nil {
		return out, err
	}
	w.count()
	info, err := f.Stat()
	if err != nil {
		return out, unreadable(path, err)
	}
	out.Bytes = info.Size()
	return out, nil
}
