package enginetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// ChatML is the chat template of the small models.
const ChatML = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// Tokenizer is a tokenizer.json whose tokens are bytes, after the three special
// ones of ChatML: the byte b has the id 3+b, in the order of their characters in
// byte-level vocabularies.
func Tokenizer() []byte {
	vocab := map[string]int{}
	special := []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
	var added []map[string]any
	for i, s := range special {
		vocab[s] = i
		added = append(added, map[string]any{"id": i, "content": s, "special": true})
	}
	next := 256
	for b := range 256 {
		r := rune(b)
		if b < '!' || b > '~' && b < 0xA1 || b == 0xAD {
			r = rune(next)
			next++
		}
		vocab[string(r)] = len(special) + b
	}
	out, _ := json.Marshal(map[string]any{ // of strings and numbers
		"added_tokens":  added,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
		"decoder":       map[string]any{"type": "ByteLevel"},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
	})
	return out
}

// WriteFolder writes a small model with all that it takes to serve it.
func WriteFolder(dir string, s Shape) error {
	if err := Write(dir, "folder", s, nil); err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"tokenizer.json": Tokenizer(), "chat_template.jinja": []byte(ChatML), "tokenizer_config.json": []byte(`{"eos_token":"<|im_end|>"}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Folder is [WriteFolder] into a folder of a test.
func Folder(t testing.TB, s Shape) string {
	t.Helper()
	dir := t.TempDir()
	if err := WriteFolder(dir, s); err != nil {
		t.Fatal(err)
	}
	return dir
}
