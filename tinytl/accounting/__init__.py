"""What a network costs to train, in bytes and multiply-accumulates, by formula. No torch.

The peak of one network (`memory`) and of thousands at once (`bulk_memory`), compute, the plans by
estimated time, and the TinyTL paper's own accounting (`published`).
"""
