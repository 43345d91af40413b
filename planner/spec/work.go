package spec

// The names of the facts in [Run.Work], by which a run says how much it
// computes. Values are plain numbers unless noted. A plan written by hand may
// state them too.
const (
	WorkNetwork    = "network"      // the name that the code gives it
	WorkParameters = "parameters"   // of the network
	WorkLayers     = "layers"       // of a transformer
	WorkHidden     = "hidden"       // width of a transformer
	WorkContext    = "context"      // tokens of one item
	WorkItemFLOP   = "item_flop"    // operations of one item, forward
	WorkTotalFLOP  = "total_flop"   // operations of the whole run
	WorkImageSize  = "image_size"   // pixels of a side
	WorkDataset    = "dataset"      // the name or path that the code gives it
	WorkItems      = "items"        // of one epoch
	WorkEpochs     = "epochs"       //
	WorkSteps      = "steps"        // optimizer steps of the whole run
	WorkBatch      = "batch"        // items of one step of one GPU
	WorkBatchAll   = "global_batch" // items of one step over all GPUs
	WorkBatchSome  = "batch_size"   // either of the two, the code does not say which
	WorkAccumulate = "accumulate"   // batches of one optimizer step
	WorkPrecision  = "precision"    // bf16|fp16|fp8|tf32|fp32
	WorkMethod     = "method"       // full|lora|lora-4bit|forward
	WorkClass      = "class"        // pretraining|finetuning|vision|diffusion|small
	WorkStepTime   = "step_s"       // seconds of one step, measured or stated
	WorkHours      = "stated_hours" // wall clock that the authors state for this run
	WorkHoursSKU   = "stated_sku"   // on this GPU, an id of estimators/sku
	WorkHoursGPUs  = "stated_gpus"  // on so many
)
