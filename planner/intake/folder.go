package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// IsCheckpoint reports whether a folder holds a model as transformers writes it:
// a config.json that names an architecture, and safetensors. Code that has a
// config.json of its own is none.
func IsCheckpoint(dir string) bool {
	b, err := readFile(dir, "config.json", maxConfig)
	if err != nil {
		return false
	}
	var c struct {
		Architectures []string `json:"architectures"`
		ModelType     string   `json:"model_type"`
	}
	if json.Unmarshal(b, &c) != nil || len(c.Architectures) == 0 && c.ModelType == "" {
		return false
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.safetensors"))
	return err == nil && len(found) > 0
}

// escapeGlob makes a path one that stands for itself alone.
func escapeGlob(p string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(p)
}

// Folder reads a model from a folder as [Intake.Model] reads one of the hub; its
// ID is the path. What the folder is called by its content is the caller's to
// find out: Revision is empty. The error is a [*NotFoundError] or one of reading.
func Folder(ctx context.Context, dir string) (*Model, error) {
	m := &Model{Access: "open", URL: "file://" + filepath.ToSlash(dir)}
	m.ID = dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", &NotFoundError{What: "folder " + dir, Fix: "name a folder with config.json, tokenizer.json and safetensors"})
	}
	var bytes int64
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name())) // the hub's own cache holds links
		if err != nil || !info.Mode().IsRegular() || !plainPath(e.Name()) || len(m.Files) >= maxFiles {
			continue
		}
		m.Files = append(m.Files, File{Path: e.Name(), Size: info.Size()})
		bytes += info.Size()
	}
	if !m.has("config.json") {
		return nil, fmt.Errorf("read model: %w", &NotFoundError{What: "config.json in " + dir, Fix: "name a folder with config.json, tokenizer.json and safetensors"})
	}
	m.fact("folder_bytes", strconv.FormatInt(bytes, 10), spec.Measured)
	m.weights(source{file: "."})
	read := func(name string, limit int64) ([]byte, source, error) {
		b, err := readFile(dir, name, limit)
		sum := sha256.Sum256(b)
		return b, source{file: name, hash: hex.EncodeToString(sum[:])}, err
	}
	if err := m.config(read); err != nil {
		return nil, fmt.Errorf("read model %s: %w", dir, err)
	}
	if len(m.Config) == 0 {
		return nil, fmt.Errorf("read model: %w", &NotFoundError{What: "a model's configuration in " + filepath.Join(dir, "config.json"), Fix: "write it again; it is not a JSON object"})
	}
	m.Quant = m.optional("hf_quant_config.json", maxConfig, read)
	if card, _, err := read("README.md", maxCard); err == nil {
		m.Card = strings.ToValidUTF8(string(card), "\uFFFD")
	}
	m.checkIndex(read)
	return m, ctx.Err()
}

// readFile reads a file of at most limit bytes.
func readFile(dir, name string, limit int64) ([]byte, error) {
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(fs.ErrInvalid, errors.New("no regular file")))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return b, err
}
