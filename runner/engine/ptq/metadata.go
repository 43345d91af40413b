package ptq

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/results/atomicfile"
)

// metadata writes config.json with its quantization_config,
// hf_quant_config.json, and the index where the checkpoint has one.
//
// The producer is named modelopt because older vLLM refuses the layout without
// that name (vllm/model_executor/model_loader/weight_utils.py); the version says
// who wrote it.
func (j *job) metadata() error {
	producer := map[string]string{"name": "modelopt", "version": "repromill-" + j.cfg.Version}
	ignore := []string{"lm_head"}
	group := map[string]any{"targets": []string{"Linear"}, "weights": j.numbers()}
	legacy := map[string]any{"quant_algo": j.cfg.Format.Algo(), "kv_cache_quant_algo": nil, "exclude_modules": ignore}
	modern := map[string]any{
		"quant_method": "modelopt", "quant_algo": j.cfg.Format.Algo(), "ignore": ignore, "producer": producer,
		"config_groups": map[string]any{"group_0": group},
	}
	if j.cfg.Format.calibrated() {
		group["input_activations"] = j.numbers()
	}
	if j.cfg.Format != FP8 {
		legacy["group_size"], modern["group_size"] = model.BlockNVFP4, model.BlockNVFP4
	}
	config, err := j.readConfig()
	if err != nil {
		return err
	}
	if j.cfg.Format == BF16 {
		delete(config, "quantization_config")
		config["torch_dtype"] = json.RawMessage(`"bfloat16"`)
		delete(config, "dtype") // the newer name of the same
		if err := j.writeJSON("config.json", config); err != nil {
			return err
		}
		return j.index()
	}
	if config["quantization_config"], err = json.Marshal(modern); err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	if err := j.writeJSON("config.json", config); err != nil {
		return err
	}
	if err := j.writeJSON("hf_quant_config.json", map[string]any{"producer": producer, "quantization": legacy}); err != nil {
		return err
	}
	return j.index()
}

// index writes where each tensor lies, where the checkpoint says so.
func (j *job) index() error {
	if j.ck.Index == nil {
		return nil
	}
	files := map[string]string{}
	for _, s := range j.ck.Shards {
		for _, e := range j.layout(&s) {
			files[e.name] = s.File
		}
	}
	return j.writeJSON("model.safetensors.index.json", map[string]any{"metadata": map[string]int64{"total_size": j.result.BytesOut}, "weight_map": files})
}

// numbers is the form of compressed-tensors for the format.
func (j *job) numbers() map[string]any {
	if j.cfg.Format == FP8 {
		return map[string]any{"num_bits": 8, "type": "float", "dynamic": false}
	}
	return map[string]any{"num_bits": 4, "type": "float", "dynamic": false, "group_size": model.BlockNVFP4}
}

func (j *job) readConfig() (map[string]json.RawMessage, error) {
	b, err := os.ReadFile(filepath.Join(j.cfg.Dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read config.json: %w", err)
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, &model.BadConfigError{File: "config.json", Why: err.Error()}
	}
	return out, nil
}

func (j *job) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := atomicfile.Write(filepath.Join(j.work, name), append(b, '\n'), j.options("metadata")); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
