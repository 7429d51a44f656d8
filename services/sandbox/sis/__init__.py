"""A small student information system: invented people and classes, a registration morning, and its messages.

It knows nothing of the product. What the learning platform must show in the end comes from `truth`, which reads this
model's own tables; the product is judged against it.
"""
