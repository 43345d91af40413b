package planner

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/planner/spec"
)

func workOf(p *spec.Plan, kind string) map[string]string {
	out := map[string]string{}
	for _, r := range p.Runs {
		if r.Kind == kind {
			for _, f := range r.Work {
				out[f.Name] = f.Value
			}
		}
	}
	return out
}

func TestWorkOfARun(t *testing.T) {
	const trainer = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--epochs', type=int, default=300)\np.add_argument('--batch_size', default=2, type=int)\n" +
		"p.add_argument('--arch', default='resnet50')\np.add_argument('--dataset', default='imagenet')\nargs = p.parse_args()\nprint('accuracy', 1)\n"
	for name, c := range map[string]struct {
		files map[string][]byte
		want  map[string]string
	}{
		"defaults of the program and a stated time": {
			map[string][]byte{"README.md": []byte("# Training\nTo train on one node with 8 gpus run:\n```\npython -m torch.distributed.launch --nproc_per_node=8 main.py --epochs 150\n```\n" +
				"A single epoch takes 28 minutes, so 150 epoch training\ntakes around 3 days on a single machine with 8 V100 cards.\nThe accuracy is 76.3%.\n"), "main.py": []byte(trainer)},
			map[string]string{spec.WorkEpochs: "150", spec.WorkBatchSome: "2", spec.WorkNetwork: "resnet50", spec.WorkDataset: "imagenet", spec.WorkItems: "1.28117e+06",
				spec.WorkParameters: "2.56e+07", spec.WorkItemFLOP: "8.18e+09", spec.WorkClass: "vision", spec.WorkHours: "72", spec.WorkHoursSKU: "v100", spec.WorkHoursGPUs: "8"},
		},
		"a file of settings before the globals of the program": {
			map[string][]byte{"README.md": []byte("```\npython train.py config/small.py --dtype=bfloat16\n```\nIt reaches an accuracy of 90.1%.\n"), "train.py": []byte(
				"batch_size = 12\nblock_size = 1024\nn_layer = 12\nn_embd = 768\nmax_iters = 600000\nexec(open('configurator.py').read())\nprint('accuracy', 1)\n"),
				"config/small.py": []byte("batch_size = 64\ngradient_accumulation_steps = 5 * 8\nmax_iters = 5000\n"), "configurator.py": []byte("import sys\n")},
			map[string]string{spec.WorkPrecision: "bf16", spec.WorkBatchSome: "64", spec.WorkAccumulate: "40", spec.WorkSteps: "5000"},
		},
		"adapters on 4-bit weights of a model whose name states its size": {
			map[string][]byte{"README.md": []byte("```\npython tune.py --model_name_or_path lab/llama-7b --lora_r 64 --bits 4 --max_steps 1875 --per_device_train_batch_size 1 --max_length 512\n```\naccuracy: 55.0%\n"),
				"tune.py": []byte("import argparse\nprint('accuracy', 1)\n")},
			map[string]string{spec.WorkMethod: "lora-4bit", spec.WorkNetwork: "lab/llama-7b", spec.WorkParameters: "7e+09", spec.WorkSteps: "1875", spec.WorkBatch: "1", spec.WorkContext: "512",
				spec.WorkClass: "finetuning"},
		},
		"nothing that says anything": {
			map[string][]byte{"README.md": []byte("```\npython run.py --out x.json\n```\naccuracy: 55.0%\n"), "run.py": []byte("print('accuracy', 1)\n")},
			map[string]string{},
		},
	} {
		got := workOf(planDir(t, layOut(t, c.files), ""), "minimal")
		if name == "a file of settings before the globals of the program" {
			maps.DeleteFunc(got, func(k, _ string) bool { return c.want[k] == "" }) // globals that the program reads further
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
