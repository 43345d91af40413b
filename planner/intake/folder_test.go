package intake

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a [model]*") // what a pattern must not be led astray by
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFolder(t *testing.T) {
	dir := folder(t, map[string]string{
		"config.json":                  `{"model_type":"qwen3","architectures":["Qwen3ForCausalLM"],"torch_dtype":"bfloat16","quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4"},"auto_map":{"x":"y"}}`,
		"model.safetensors":            "weights",
		"README.md":                    "# A card",
		"model.safetensors.index.json": `{"weight_map":{"a":"model.safetensors","b":"gone.safetensors"}}`,
	})
	if !IsCheckpoint(dir) {
		t.Error("it is taken for code")
	}
	m, err := Folder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != dir || m.Card != "# A card" || len(m.Config) == 0 || len(m.Files) != 4 || m.Revision != "" {
		t.Errorf("%+v", m)
	}
	for name, want := range map[string]string{"quant_algo": "NVFP4", "weight_formats": "safetensors", "architecture": "Qwen3ForCausalLM"} {
		if !slices.ContainsFunc(m.Facts, func(f spec.Fact) bool { return f.Name == name && f.Value == want }) {
			t.Errorf("no fact %s = %s in %+v", name, want, m.Facts)
		}
	}
	for _, code := range []string{"remote_code", "weights_index_mismatch"} {
		if !slices.ContainsFunc(m.Warnings, func(w spec.Warning) bool { return w.Code == code }) {
			t.Errorf("no warning %s in %+v", code, m.Warnings)
		}
	}
}

func TestFoldersThatHoldNoModel(t *testing.T) {
	config := `{"model_type":"llama"}`
	for name, files := range map[string]map[string]string{
		"code with a config.json":  {"config.json": `{"lr":0.1}`, "train.py": "", "x.safetensors": ""},
		"a configuration alone":    {"config.json": config},
		"weights alone":            {"model.safetensors": ""},
		"a configuration cut off":  {"config.json": config[:9], "model.safetensors": ""},
		"a configuration too long": {"config.json": config + strings.Repeat(" ", maxConfig), "model.safetensors": ""},
	} {
		if IsCheckpoint(folder(t, files)) {
			t.Errorf("%s is taken for a model", name)
		}
	}
	for name, dir := range map[string]string{
		"nothing there":  filepath.Join(t.TempDir(), "x"),
		"no config.json": folder(t, map[string]string{"model.safetensors": ""}),
		"no JSON":        folder(t, map[string]string{"config.json": "{", "model.safetensors": ""}),
		"JSON of a list": folder(t, map[string]string{"config.json": "[]", "model.safetensors": ""}),
	} {
		_, err := Folder(t.Context(), dir)
		var missing *NotFoundError
		if !errors.As(err, &missing) || missing.UserError() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
