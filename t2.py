import re
s=open('/tmp/l1src/2.txt').read()
code=[p.partition('\n')[2] for p in ('\n'+s).split('\n%% ')[1:] if p.startswith(('code','solution'))]
imp=code[0].split('%matplotlib')[0]
i=next(k for k,c in enumerate(code) if c.startswith('def faces('))
src='\n'.join([imp]+code[i:i+2]+code[i+3:i+4]+['print(scores)']+[c for c in code if 'shares = np.lin' in c]+["recalls = [recall(taught_by(lambda s: s - {25} if rng.random() < q else s), lambda s: 25 in s) for q in shares]; print(recalls)"])
exec(src)
