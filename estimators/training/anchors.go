package training

import (
	"github.com/repromill/repromill/estimators/sku"
)

// Anchor is a job whose time its authors state.
type Anchor struct {
	Name   string
	Job    Job
	SKU    string
	GPUs   int
	Hours  float64
	Source string
	Inputs string // where the inputs of the count come from
}

// Check is an anchor with what operations alone say of it.
type Check struct {
	Anchor string  `json:"anchor"`
	SKU    string  `json:"sku"`
	GPUs   int     `json:"gpus"`
	Stated float64 `json:"stated_gpu_hours"`
	P10    float64 `json:"p10_gpu_hours"`
	P50    float64 `json:"p50_gpu_hours"`
	P90    float64 `json:"p90_gpu_hours"`
	Reach  float64 `json:"implied_utilisation"` // that the stated time implies
	Inside bool    `json:"inside"`
	Source string  `json:"source"`
	Inputs string  `json:"inputs"`
}

// Anchors are costs that authors state and whose inputs they state too. None of
// them set the utilisation of [Utilise] but nanochat's, which is one of eight
// published ones there.
func Anchors() []Anchor {
	const imagenet = 1_281_167.0
	const mae = "facebookresearch/mae "
	return []Anchor{
		{"nanoGPT GPT-2 124M", Job{Params: 124e6, Layers: 12, Hidden: 768, Context: 1024, Tokens: 600_000 * 491_520, Class: Pretraining},
			"a100-40gb", 8, 96, "karpathy/nanoGPT README.md: about 4 days", "config/train_gpt2.py: 600,000 steps of 491,520 tokens"},
		{"nanoGPT characters", Job{Params: 10.7e6, Layers: 6, Hidden: 384, Context: 256, Tokens: 5000 * 64 * 256, Class: Small},
			"a100", 1, 0.05, "karpathy/nanoGPT README.md: about 3 minutes", "config/train_shakespeare_char.py"},
		{"nanochat d24", Job{TotalFLOPs: 4.330784e19, Class: Pretraining},
			"h100", 8, 3.0415, "karpathy/nanochat dev/LEADERBOARD.md run 1", "total_training_flops of the same run"},
		{"DETR ResNet-50, 300 epochs", Job{Params: 41e6, ItemFLOPs: 172e9, Items: 300 * 118_287, Precision: "fp32", Class: Vision},
			"v100", 8, 144, "facebookresearch/detr README.md: around 6 days", "arXiv 2005.12872 table 1: 86 G multiply-adds"},
		{"MAE ViT-L pre-training, 800 epochs", Job{Params: 330e6, ItemFLOPs: 40.6e9, Items: 800 * imagenet, Precision: "fp16", Class: Vision},
			"v100", 64, 42, mae + "PRETRAIN.md", "a quarter of 196 patches in the encoder, 8 decoder blocks of width 512"},
		{"MAE ViT-B fine-tuning, 100 epochs", Job{Params: 86e6, ItemFLOPs: 35.1e9, Items: 100 * imagenet, Precision: "fp16", Class: Vision},
			"v100", 32, 7.183, mae + "FINETUNE.md", "ViT-B/16 at 224 pixels"},
		{"MAE ViT-L fine-tuning, 50 epochs", Job{Params: 304e6, ItemFLOPs: 123e9, Items: 50 * imagenet, Precision: "fp16", Class: Vision},
			"v100", 32, 8.867, mae + "FINETUNE.md", "ViT-L/16 at 224 pixels"},
		{"MAE ViT-H fine-tuning, 50 epochs", Job{Params: 632e6, ItemFLOPs: 335e9, Items: 50 * imagenet, Precision: "fp16", Class: Vision},
			"v100", 64, 13.15, mae + "FINETUNE.md", "ViT-H/14 at 224 pixels"},
		{"MAE ViT-B linear probe, 90 epochs", Job{Params: 86e6, ItemFLOPs: 35.1e9, Items: 90 * imagenet, Precision: "fp16", Class: Vision, Method: Forward},
			"v100", 32, 2.333, mae + "FINETUNE.md", "ViT-B/16 at 224 pixels, forward only"},
		{"ELECTRA-Small, 1M steps", Job{Params: 10.1e6, Layers: 12, Hidden: 256, Context: 128, Tokens: 1e6 * 128 * 128, Precision: "fp32", Class: Small},
			"v100", 1, 97, "google-research/electra README.md: slightly over 4 days", "12 layers of width 256 and a generator of a quarter"},
		{"GraphGPS medium, PCQM4Mv2", Job{Params: 19.4e6, Tokens: 150 * 3.38e6 * 14.1, Precision: "fp32", Class: Small},
			"a100", 1, 48, "rampasek/GraphGPS README.md", "150 epochs of configs/GPS; 14.1 atoms a molecule (arXiv 2103.09430)"},
		{"QLoRA Guanaco 65B", Job{Params: 65e9, Layers: 80, Hidden: 8192, Context: 528, Tokens: 1875 * 16 * 528, Method: QLoRA, Trainable: 0.8e9, Recompute: "full", Optimizer: "paged", Class: Finetuning},
			"rtx-a6000", 1, 24, "artidoro/qlora README.md: 24 hours on a single 48 GB GPU", "scripts/finetune_guanaco_65b.sh; the GPU is taken for an RTX A6000, sequences for full, which they are at most"},
	}
}

// Checks estimates every anchor by its operations. An anchor that does not fit
// the catalogue is a fault of this package.
func Checks() ([]Check, error) {
	var out []Check
	for _, a := range Anchors() {
		g, err := sku.Find(a.SKU)
		if err != nil {
			return nil, err
		}
		c, err := a.Job.Estimate(g, a.GPUs)
		if err != nil {
			return nil, err
		}
		stated := a.Hours * float64(a.GPUs)
		rate, _ := Rate(g, a.Job.Precision)
		out = append(out, Check{a.Name, g.ID, a.GPUs, stated, c.GPUHours.P10, c.GPUHours.P50, c.GPUHours.P90,
			c.Operations.Computed / (rate * 1e12 * stated * 3600), c.GPUHours.P10 <= stated && stated <= c.GPUHours.P90, a.Source, a.Inputs})
	}
	return out, nil
}
